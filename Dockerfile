# A static binary and nothing else: no shell, no package manager, no user to become.
#
#   make image      builds bin/armord and this image from it, without pulling anything
FROM scratch
COPY bin/armord bin/armorctl /usr/local/bin/
USER 65532:65532
VOLUME /var/lib/armor
EXPOSE 6432 7432 7946 9432
ENTRYPOINT ["/usr/local/bin/armord"]
CMD ["run", "--config", "/etc/armor/armord.yaml"]
