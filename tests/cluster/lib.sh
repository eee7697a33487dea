# Sourced by control-plane.sh and node.sh: certificates and waiting. Both run in the scratch folder that holds ca.key.

# new_ca: the one authority that every component trusts.
new_ca() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
    -keyout ca.key -out ca.crt -subj /CN=test-ca 2>/dev/null
}

# issue NAME SUBJECT SANS: NAME.key and NAME.crt, good for servers and clients.
issue() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout "$1.key" -out "$1.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth' "$3") 2>/dev/null
}

# kubeconfig NAME SERVER: NAME.kubeconfig for the user whose certificate is NAME.crt.
kubeconfig() {
  cat >"$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "$2", certificate-authority: $PWD/ca.crt}}]
users: [{name: $1, user: {client-certificate: $PWD/$1.crt, client-key: $PWD/$1.key}}]
contexts: [{name: test, context: {cluster: test, user: $1}}]
current-context: test
YAML
}

# wait_for SECONDS COMMAND…: until it succeeds; at the deadline says which command never did.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      echo "cluster: gave up waiting for: $*" >&2
      tail -n 15 logs/*.log >&2
      return 1
    fi
    sleep .1
  done
}
