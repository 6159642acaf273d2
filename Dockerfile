# Static binaries and nothing else: no shell, no package manager, no user to become.
# rootfs.tar is made by tools/rootfs.sh; `make image` does both, and pulls nothing.
#
#   /usr/local/bin      armord, armorctl
#   /etc/armor          armord.yaml, which you mount, and what it names
#   /var/lib/armor      the data, a volume, owned by the user armor (65532)
#   /home/armor         armorctl's contexts
FROM scratch
ARG VERSION
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.title="Armor" \
      org.opencontainers.image.description="A highly available PostgreSQL connection pooler whose front door is mutual TLS" \
      org.opencontainers.image.source="https://github.com/armordb/armordb" \
      org.opencontainers.image.documentation="https://github.com/armordb/armordb/blob/main/docs/install.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
ADD rootfs.tar /
USER 65532:65532
VOLUME /var/lib/armor
# clients, peers and the API, gossip, health and metrics
EXPOSE 6432 6433 6434 6434/udp 6435
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["/usr/local/bin/armord", "health"]
ENTRYPOINT ["/usr/local/bin/armord"]
CMD ["run"]
