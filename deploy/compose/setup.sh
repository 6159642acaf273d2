#!/usr/bin/env bash
# What an operator does by hand, for docker-compose.yml. Either part may be run again,
# and after it was stopped anywhere: it does what is left to do.
#
#   setup.sh init     server certificates, secrets, the cluster of n1, tokens for the others
#   setup.sh setup    the others admitted, the configuration applied, the app's certificate
set -euo pipefail
umask 077
export ARMOR_NO_INPUT=1
others='n2 n3'
here=$(dirname "$0")

say() { echo "== $*" >&2; }

# until_done SECONDS WHAT COMMAND...: tries until it succeeds, and shows why it did not.
until_done() {
	local end=$((SECONDS + $1)) what=$2 said
	shift 2
	until said=$("$@" 2>&1); do
		if [ "$SECONDS" -ge "$end" ]; then
			echo "$what: not within the time: $said" >&2
			return 1
		fi
		sleep 0.2
	done
}

# quietly COMMAND...: what it says is shown only when it fails.
quietly() {
	local said
	said=$("$@" 2>&1) || { printf '%s\n' "$said" >&2; return 1; }
}

# put FILE: standard input, whole or not at all.
put() { cat >"$1.new" && mv "$1.new" "$1"; }

# --- what a node needs before it is one -------------------------------------------

server_ca() {
	mkdir -p ~/server-ca
	[ -s ~/server-ca/ca.crt ] && return
	say "a CA for the certificates that clients verify the nodes by"
	quietly openssl req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=demo servers' \
		-addext 'keyUsage=critical,keyCertSign,cRLSign' -keyout ~/server-ca/ca.key -out ~/server-ca/ca.new
	mv ~/server-ca/ca.new ~/server-ca/ca.crt
}

server_certificate() {
	local dir=/nodes/$1 work
	[ -s "$dir/server.crt" ] && return
	work=$(mktemp -d)
	quietly openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$work/key" -out "$work/csr"
	printf '%s\n' "subjectAltName=DNS:localhost,DNS:haproxy,DNS:$1,IP:127.0.0.1" basicConstraints=critical,CA:false \
		keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth >"$work/extensions"
	quietly openssl x509 -req -in "$work/csr" -CA ~/server-ca/ca.crt -CAkey ~/server-ca/ca.key -days 397 -extfile "$work/extensions" \
		-out "$work/crt"
	put "$dir/server.key" <"$work/key"
	put "$dir/server.crt" <"$work/crt"
	rm -r "$work"
}

secrets() {
	mkdir -p "/nodes/$1/secrets"
	printf 'passwords: [not-a-secret-either]\nhosts: ["postgres:5432"]\n' | put "/nodes/$1/secrets/app.yaml"
}

# --- the cluster --------------------------------------------------------------------

found() {
	armorctl --timeout 5s status >/dev/null 2>&1 && return
	say "n1 becomes a cluster"
	until_done 60 "n1 waits to be initialised" initialised
	until_done 60 "the cluster answers" armorctl status
}

# initialised may have been cut short after the node was told: then it goes on by itself,
# waits for nobody any more, and the operator's files are here.
initialised() {
	local own=~/.config/armor/n1
	if [ -e /nodes/n1/admin.sock ] || [ ! -s "$own/operator.crt" ]; then
		armorctl init --socket /nodes/n1/admin.sock --context n1 --operator admin --peer-ca ~/peer-ca \
			--server-ca ~/server-ca/ca.crt --unencrypted
	else
		armorctl context show n1 >/dev/null 2>&1 || armorctl context add n1 --addr n1:6433 --cert "$own/operator.crt" \
			--key "$own/operator.key" --peer-ca "$own/peer-ca.crt" --server-ca ~/server-ca/ca.crt
		armorctl context use n1
	fi
}

# is_member NODE
is_member() { armorctl node list -o json | tr -d ' \n' | grep -q "\"node\":\"$1\""; }

token() {
	is_member "$1" && return
	say "a token for $1"
	armorctl join-token create "$1" | put "/nodes/$1/join.token"
}

admit() {
	is_member "$1" && return
	say "$1 is admitted"
	until_done 60 "$1 asks to join" armorctl node approve "$1" --peer-ca ~/peer-ca
}

all_addresses() {
	armorctl context show demo >/dev/null 2>&1 || armorctl context add demo --addr n1:6433 --addr n2:6433 --addr n3:6433 \
		--cert ~/.config/armor/n1/operator.crt --key ~/.config/armor/n1/operator.key \
		--peer-ca ~/.config/armor/n1/peer-ca.crt --server-ca ~/server-ca/ca.crt
	armorctl context use demo
}

# --- who may come in ----------------------------------------------------------------

configure() {
	[ -s /client/client.crt ] && return
	say "a CA for clients, the configuration, and the app's certificate"
	armorctl ca init --environment demo --out ~/client-ca --unencrypted >/dev/null
	until_done 60 "every node knows what apply means" armorctl apply -y -f "$here/cluster.yaml"
	armorctl cert issue app --environment demo --ca ~/client-ca --lifetime 90d --out /client
}

# serves NODE: it lends the app a server connection.
serves() {
	psql -X -A -t -c 'select 1' "host=$1 port=6432 user=app dbname=app sslmode=verify-full connect_timeout=5
		sslrootcert=/client/ca.crt sslcert=/client/client.crt sslkey=/client/client.key"
}

# await_service, the first time: later the certificate may have been revoked, for good.
await_service() {
	[ ! -e ~/served ] || return 0
	for node in n1 $others; do until_done 60 "a client is served by $node" serves "$node"; done
	touch ~/served
	say "every node serves"
}

case ${1:-} in
init)
	server_ca
	for node in n1 $others; do server_certificate "$node"; secrets "$node"; done
	found
	for node in $others; do token "$node"; done
	;;
setup)
	for node in $others; do admit "$node"; done
	all_addresses
	configure
	await_service
	;;
*)
	echo "usage: setup.sh init|setup" >&2
	exit 2
	;;
esac
