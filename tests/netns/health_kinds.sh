# Each kind of check against a real server of its kind (nginx, nginx with TLS
# and SNI, dnsmasq, exim, ICMP, a script, a file): up, then down, then up, then hanging, each
# within the time that keepalived.conf(5) implies. Beside them checks that are lied to. exim also
# takes the mails about it.
# alone: it measures when checks change their verdict.
source "$(dirname "$0")/lib.sh"
needs nginx openssl dnsmasq exim4
make_network 1

# ---------------------------------------------------------------- servers

site=$WORK/site
mkdir -p "$site"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=www.example.org \
    -keyout "$WORK/key" -out "$WORK/certificate" 2>/dev/null
cat >"$WORK/nginx.conf" <<END
user root;
worker_processes 1;
daemon off;
pid $WORK/nginx.pid;
error_log $WORK/nginx.log;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path $WORK/body;
    proxy_temp_path $WORK/proxy;
    fastcgi_temp_path $WORK/fastcgi;
    uwsgi_temp_path $WORK/uwsgi;
    scgi_temp_path $WORK/scgi;
    ssl_certificate $WORK/certificate;
    ssl_certificate_key $WORK/key;
    server {
        listen 80;
        listen 81 http2;
        root $site;
        location = /slow { limit_rate 100; }
        location = /lost { return 444; }
    }
    # Without the right name there is no handshake.
    server { listen 443 ssl http2 default_server; ssl_reject_handshake on; }
    server { listen 443 ssl http2; server_name www.example.org; root $site; }
}
END
cat >"$WORK/exim.conf" <<END
primary_hostname = mail.example.org
spool_directory = $WORK/spool
log_file_path = $WORK/spool/%s.log
pid_file_path = $WORK/exim.pid
local_interfaces = 10.77.0.101
daemon_smtp_ports = 25
tls_advertise_hosts =
rfc1413_query_timeout = 0s
keep_environment =
acl_smtp_rcpt = accept
begin routers
everybody:
    driver = accept
    transport = file
begin transports
file:
    driver = appendfile
    file = $WORK/spool/mail
    user = Debian-exim
END
mkdir -p "$WORK/spool"
chmod 755 "$WORK"
chown -R Debian-exim "$WORK/spool"

# Linux says at most once a second that a UDP port is closed: a UDP_CHECK that
# asks more often would take the silence in between for consent.
setting rs1 net.ipv4.icmp_ratelimit=0

start_servers() {
    echo 'status: Green' >"$site/health"
    head -c 10000 /dev/zero >"$site/slow"
    echo 0 >"$WORK/number"
    touch "$WORK/well"
    setting rs1 net.ipv4.icmp_echo_ignore_all=0
    exec_on rs1 nginx -p "$WORK" -c "$WORK/nginx.conf" -e "$WORK/nginx.log" &
    nginx=$!
    exec_on rs1 dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts \
        --pid-file="$WORK/dnsmasq.pid" --user=root --bind-interfaces --listen-address=10.77.0.101 \
        --address=/www.example.org/192.0.2.1 2>"$WORK/dnsmasq.log" &
    dnsmasq=$!
    exec_on rs1 exim4 -bdf -C "$WORK/exim.conf" 2>"$WORK/exim.log" &
    exim=$!
}

stop_servers() {
    kill $nginx $dnsmasq $exim
    wait $nginx $dnsmasq $exim 2>/dev/null || true
    rm "$WORK/well"
    echo 1 >"$WORK/number"
    setting rs1 net.ipv4.icmp_echo_ignore_all=1
}

# ---------------------------------------------------------------- director

digest=$(echo 'status: Green' | md5sum | cut -d' ' -f1)
config '[global_defs]' 'router_id = "lvs"' 'smtp_server = "10.77.0.101"' \
    'notification_email_from = "lvs@example.org"' 'notification_email = ["ops@mail.example.org"]' \
    'smtp_alert = false'
# service PORT PROTOCOL CHECK
service() {
    virtual_server "$VIP:$1" "$2" rr 'delay_loop = 0.4' 'connect_timeout = 0.5' 'retry = 1' \
        'delay_before_retry = 0.2' 'alpha = true'
    real_server "10.77.0.101:$1" 1 "$3"
}
service 80 TCP "HTTP_GET = { http_protocol = \"1.1\", url = [
    { path = \"/health\", digest = \"$digest\", status_code = \"200-299,301\" },
    { path = \"/health\", regex = 'status:\\s+green', regex_options = \"caseless\" },
    { path = \"/none\", status_code = 404 }] }"
service 443 TCP 'SSL_GET = { virtualhost = "www.example.org", enable_sni = true, url = { path = "/health" } }'
service 444 TCP 'SSL_GET = { connect_port = 443, virtualhost = "www.example.org", url = { path = "/health" } }'
service 445 TCP "SSL_GET = { connect_port = 443, virtualhost = \"www.example.org\", enable_sni = true, http_protocol = \"2\",
    url = { path = \"/health\", digest = \"$digest\" } }"
service 81 TCP 'HTTP_GET = { http_protocol = "2", url = { path = "/health" } }'
service 53 UDP 'DNS_CHECK = { name = "www.example.org", type = "A" }'
# A query for the root's SOA in hexadecimal; the answer is any, with the same id.
service 54 UDP 'UDP_CHECK = { connect_port = 53, payload = "abcd 0100 0001 0000 0000 0000 00 0006 0001", require_reply = "abcd 8x", min_reply_length = 12 }'
service 55 UDP 'UDP_CHECK = { connect_port = 53 }'
service 25 TCP 'SMTP_CHECK = { helo_name = "director.example.org", connect_timeout = 2 }'
service 22 TCP 'PING_CHECK = {}'
service 23 TCP "MISC_CHECK = { misc_path = \"test -e $WORK/well\", user = \"nobody\" }"
service 24 TCP "FILE_CHECK = { file = \"$WORK/number\", weight = 0 }"

# Lies: what answers is well, and is something else than was asked for. Never up.
service 8001 TCP 'HTTP_GET = { connect_port = 25, url = { path = "/" } }'
service 8002 TCP 'SMTP_CHECK = { connect_port = 80 }'
service 8003 TCP 'SSL_GET = { connect_port = 80, url = { path = "/health" } }'
service 8004 TCP 'HTTP_GET = { connect_port = 443, url = { path = "/health" } }'
service 8005 TCP 'HTTP_GET = { connect_port = 80, url = { path = "/slow" } }'
service 8006 TCP 'HTTP_GET = { connect_port = 80, url = { path = "/lost" } }'
service 8007 TCP 'HTTP_GET = { connect_port = 80, url = { path = "/none" } }'
service 8008 TCP "HTTP_GET = { connect_port = 80, url = { path = \"/slow\", digest = \"$digest\" } }"
service 8009 UDP 'DNS_CHECK = { connect_port = 53, name = "www.example.net" }'
service 8010 UDP 'UDP_CHECK = { connect_port = 53, payload = "abcd 0100 0001 0000 0000 0000 00 0006 0001", require_reply = "abce" }'
service 8011 TCP 'HTTP_GET = { connect_port = 80, http_protocol = "2", url = { path = "/health" } }'
service 8012 TCP 'HTTP_GET = { connect_port = 81, url = { path = "/health" } }'
lies=(
    'HTTP_GET .*:25 /: the answer is not HTTP'
    'SMTP_CHECK .*:80: greeting: timed out'
    'SSL_GET .*:80 /health: TLS: received corrupt message'
    'HTTP_GET .*:443 /health: status 400, expected 200-299'
    'HTTP_GET .*:80 /slow: no complete answer: timed out after 500ms'
    'HTTP_GET .*:80 /lost: connection closed before the answer'
    'HTTP_GET .*:80 /none: status 404, expected 200-299'
    'HTTP_GET .*:80 /slow: no complete answer: timed out after 500ms'
    'DNS_CHECK .* www.example.net: answered with REFUSED'
    'UDP_CHECK .*: the answer has 0xcd at byte 1, expected 0xce'
    'HTTP_GET .*:80 /health: HTTP/2: '
    'HTTP_GET .*:81 /health: the answer is not HTTP'
)

# everything STATE: all checks have it, but for the one without SNI, the lies, and the
# UDP_CHECK that only asks whether somebody refuses.
everything() {
    local others
    others=$(ask health ".[] | select((.virtual_server | test(\":(444|80..)$\") | not) and .state != \"$1\")
        | \"\(.virtual_server) \(.check) is \(.state): \(.last_result)\"")
    [ -z "$others" ] || { echo "$others" >"$WORK/others"; return 1; }
}

# The worst: a try has just passed, two more run into their timeouts.
# 0.4 + 2 × 0.5 + 0.2 s, FILE_CHECK 1 s; 10 % and 50 ms; and 0.3 s for asking.
allowed=2110
within_allowed() {
    local begin
    begin=$(now)
    until everything "$1"; do
        [ $(($(now) - begin)) -lt $allowed ] || fail "not $1 after $allowed ms: $(cat "$WORK/others")"
        sleep 0.05
    done
    echo "$1 after $(($(now) - begin)) ms"
}

start_servers
start_director
allowed=5000 within_allowed up
contains "handshake without a name" \
    "$(ask health ".[] | select(.virtual_server == \"$VIP:444\") | .last_result")" "TLS: .*UnrecognisedName"
# Everything else may be up before a lie has timed out twice: alone, each takes up to 1.6 s.
every_lie_is_known() { [ -z "$(ask health '.[] | select((.virtual_server | test(":80..$")) and .state == "checking")')" ]; }
wait_until 10 "a result of every lie" every_lie_is_known
for number in "${!lies[@]}"; do
    said=$(ask health ".[] | select(.virtual_server == \"$VIP:$((8001 + number))\") | \"\(.state): \(.last_result)\"")
    contains "lie $number" "$said" "^down: ${lies[number]}"
done
stop_servers
within_allowed down
ask health '.[] | "\(.check): \(.last_result)"'
start_servers
# exim needs its time to start.
allowed=5000 within_allowed up

# They hang: the kernel accepts, nobody answers. At most
# 0.4 + 2 × 0.5 + 0.2 s, and for SMTP_CHECK 0.4 + 2 × 2 + 0.2 s; 10 % and 50 ms; and 0.5 s for asking.
state_of() { ask health ".[] | select(.virtual_server == \"$VIP:$1\") | .state"; }
down_by() {
    local limit=$1 port
    shift
    for port in "$@"; do
        until [ "$(state_of "$port")" = down ]; do
            [ $(($(now) - begin)) -lt "$limit" ] || fail "port $port hangs and is not down after $limit ms"
            sleep 0.05
        done
    done
    echo "down after $(($(now) - begin)) ms: $*"
}
workers=$(pgrep -P $nginx)
begin=$(now)
kill -STOP $nginx $workers $dnsmasq $exim
down_by 2600 80 81 443 445 53 54
down_by 6000 25
for port in 55 22 23 24; do equal "port $port beside servers that hang" "$(state_of $port)" up; done
kill -CONT $nginx $workers $dnsmasq $exim
within_allowed up

# A lie: the right status, another body.
echo 'status: Red' >"$site/health"
wait_until 3 "the digest is wrong" \
    prints 'digest is' ask health '.[] | select(.check == "HTTP_GET") | .last_result'

# smtp_alert: exim takes keepalived's words about itself. Switched on by now, so that there are few.
sed -i 's/^smtp_alert = false/smtp_alert = true/' "$CONFIG"
reload >/dev/null
rm "$WORK/well"
# Whichever is down first: the page with the wrong digest has a check by TLS, too.
wait_until 5 "a mail about a real server was delivered" grep -qE \
    '^Subject: \[lvs\] Realserver \[10.77.0.101\]:tcp:(23|80) of virtual server \[10.77.0.100\]:tcp:(23|80) - DOWN$' "$WORK/spool/mail"
contains "mail" "$(<"$WORK/spool/mail")" '^From: lvs@example.org$'
contains "mail" "$(<"$WORK/spool/mail")" '^To: ops@mail.example.org$'
