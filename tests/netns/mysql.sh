# configs/mysql.toml with two real MariaDBs and their own client: queries,
# transactions, and the death of one while sessions are open on both.
source "$(dirname "$0")/lib.sh"
needs mariadbd mariadb
make_network 2

# start_mariadb NUMBER: without accounts, in as little as it needs. Its server_id is its number.
start_mariadb() {
    local directory=$WORK/mariadb$1
    mkdir "$directory"
    exec_on "rs$1" mariadbd --no-defaults --user=root --datadir="$directory" \
        --socket="$directory/socket" --pid-file="$directory/pid" --server-id="$1" \
        --bind-address=0.0.0.0 --skip-name-resolve --skip-grant-tables \
        --innodb-data-file-path=ibdata1:5M:autoextend --innodb-log-file-size=4M \
        --innodb-buffer-pool-size=8M --innodb-flush-method=nosync --innodb-doublewrite=0 \
        --innodb-undo-tablespaces=0 --innodb-temp-data-file-path=ibtmp1:1M:autoextend \
        2>"$directory/log" &
    MARIADB[$1]=$!
}
declare -A MARIADB
for number in 1 2; do start_mariadb $number; done

sed 's/192\.168\.1\./10.77.0./' "$HERE/../../configs/mysql.toml" >"$CONFIG"
start_director

# sql HOST STATEMENTS: what they answer.
sql() { on client mariadb --no-defaults --host="$1" --user=root --connect-timeout=3 -BNe "$2"; }
# query: the same by way of the director, from stdin.
query() { on client mariadb --no-defaults --host=$VIP --user=root -BN; }
for number in 1 2; do
    wait_until 20 "MariaDB of rs$number answers" sql 10.77.0.10$number 'SELECT 1'
    sql 10.77.0.10$number 'CREATE DATABASE shop; CREATE TABLE shop.sold (item INT) ENGINE=InnoDB'
done
wait_until 8 "both are up" eval 'server_is 1 up && server_is 2 up'

answers=$(for _ in {1..6}; do sql $VIP 'SELECT @@server_id'; done)
for number in 1 2; do
    between "queries of $number" "$(served $number <<<"$answers")" 2 4
done
# More than fits into a window, in either direction.
head -c 4000000 /dev/zero | tr '\0' x >"$WORK/long"
equal "4 MB to it" "$(printf "SELECT MD5('%s')" "$(<"$WORK/long")" | query)" "$(md5sum <"$WORK/long" | cut -d' ' -f1)"
query <<<"SELECT REPEAT('x', 4000000)" | cmp -n 4000000 - "$WORK/long" || fail "4 MB from it"

# session NAME: a client that stays; say NAME STATEMENT: gives it something to do.
declare -A SESSION CLIENT
session() {
    local fd
    mkfifo "$WORK/$1.sql"
    exec_on client mariadb --no-defaults --host=$VIP --user=root --database=shop -BN --unbuffered \
        <"$WORK/$1.sql" >"$WORK/$1.said" 2>"$WORK/$1.error" &
    CLIENT[$1]=$!
    exec {fd}>"$WORK/$1.sql"
    SESSION[$1]=$fd
    say "$1" 'SELECT @@server_id'
    wait_until 5 "session $1 is open" test -s "$WORK/$1.said"
}
say() { echo "$2;" >&"${SESSION[$1]}"; }
ended() { ! kill -0 "${CLIENT[$1]}"; }

session first
session second
first=$(<"$WORK/first.said")
second=$(<"$WORK/second.said")
[ "$first" != "$second" ] || fail "two sessions are both on rs$first"
say first 'BEGIN; INSERT INTO sold VALUES (1), (2), (3); SELECT COUNT(*) FROM sold'
wait_until 5 "the first has inserted" grep -qx 3 "$WORK/first.said"
equal "what others see of it" "$(sql 10.77.0.10$first 'SELECT COUNT(*) FROM shop.sold')" 0

echo "MariaDB of rs$second dies"
kill -9 "${MARIADB[$second]}"
say second 'SELECT 1'
wait_until 5 "the second session ends" ended second
contains "what it said" "$(<"$WORK/second.error")" 'Lost connection|gone away'
wait_until 8 "it is out" server_is "$second" down
answers=$(for _ in {1..4}; do sql $VIP 'SELECT @@server_id'; done)
equal "queries of the other" "$(served "$first" <<<"$answers")" 4

say first 'COMMIT; SELECT "committed"'
wait_until 5 "the first session goes on" grep -qx committed "$WORK/first.said"
equal "what others see now" "$(sql $VIP 'SELECT COUNT(*) FROM shop.sold')" 3

rm -r "$WORK/mariadb$second"
start_mariadb "$second"
wait_until 20 "it is back" server_is "$second" up
answers=$(for _ in {1..4}; do sql $VIP 'SELECT @@server_id'; done)
between "queries of rs$second again" "$(served "$second" <<<"$answers")" 1 4
