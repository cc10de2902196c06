#!/bin/bash
# Checks bench/budget itself, with a valgrind that says what it is told to: it passes what is as recorded, and
# fails when there are more instructions, and when none were counted.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp --directory)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bench" "$scratch/bin"
cp bench/budget "$scratch/bench/"
readonly recorded=$scratch/bench/instructions.tsv
cat >"$scratch/bin/valgrind" <<'END'
#!/bin/bash
echo "==1== Collected : $COLLECTED" >&2
exit "${STATUS:-0}"
END
chmod +x "$scratch/bin/valgrind"

# expect STATUS WHAT [VARIABLE=VALUE…] [--update]
expect() {
	local want=$1 what=$2 output status=0
	shift 2
	local update=()
	if [[ ${*: -1} == --update ]]; then
		update=(--update)
		set -- "${@:1:$#-1}"
	fi
	output=$(env PATH="$scratch/bin:$PATH" "$@" "$scratch/bench/budget" "${update[@]}" 2>&1) || status=$?
	if [[ $status != "$want" ]]; then
		printf 'bench/budget, %s: expected status %s, got %s:\n%s\n' "$what" "$want" "$status" "$output"
		exit 1
	fi
}

readonly hundred=COLLECTED=3276800 # for each of the 32768 packets
expect 0 "recording" "$hundred" --update
cp "$recorded" "$scratch/good.tsv"
expect 0 "as recorded" "$hundred"
expect 0 "2 % more" COLLECTED=3342336
expect 1 "4 % more" COLLECTED=3407872

for nothing in "COLLECTED=" "COLLECTED=0"; do
	expect 1 "$nothing" "$nothing"
	expect 1 "$nothing" "$nothing" --update
done
expect 1 "pktgen fails" "$hundred" STATUS=1
expect 1 "pktgen fails" "$hundred" STATUS=1 --update
cmp "$recorded" "$scratch/good.tsv"

sed 1d "$scratch/good.tsv" >"$recorded"
expect 1 "a row was not recorded" "$hundred"
: >"$recorded"
expect 1 "nothing was recorded" "$hundred"
{
	cat "$scratch/good.tsv"
	printf 'bridge\t1\t100.0\n'
} >"$recorded"
expect 1 "a row was not counted" "$hundred"
echo "bench/budget fails when it should"
