#!/usr/bin/env bash
# Runs the fuzz targets under libFuzzer: fuzz.sh SECONDS [TARGET...], so many seconds of CPU time for each. The compiler's own
# instrumentation is all that is needed: no nightly toolchain, no cargo-fuzz. What is found beyond the committed corpora stays in
# target/fuzz/corpus; an input that fails, in target/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=$1
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' Cargo.toml)
place=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")/fuzz

flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
# With a target triple, build scripts are left alone.
triple=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="$flags" CARGO_TARGET_DIR="$place" cargo build --quiet --release --target "$triple" --bins

# The seconds of CPU time that a process has used; fails when it is gone.
used() {
    local fields
    read -r -a fields < <(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) && echo $(((fields[11] + fields[12]) / $(getconf CLK_TCK)))
}

failed=0
for target in "${targets[@]}"; do
    mkdir -p "$place/corpus/$target" "$place/artifacts"
    log=$place/$target.log
    nice -n 19 "$place/$triple/release/$target" -max_len=8192 -rss_limit_mb=2048 -timeout=25 -print_final_stats=1 \
        -artifact_prefix="$place/artifacts/$target-" "$place/corpus/$target" "corpus/$target" >"$log" 2>&1 &
    fuzzer=$!
    # CPU time, not time: a machine that is busy does not shorten it.
    while spent=$(used $fuzzer) && [ "$spent" -lt "$seconds" ]; do sleep 1; done
    kill -TERM $fuzzer 2>/dev/null || true
    status=0
    wait $fuzzer || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(grep -o 'cov: [0-9]*' "$log" | tail -1)
    # Interrupted, as it was told to be.
    if [ "$status" -ne 72 ]; then
        failed=1
        tail -20 "$log"
    fi
    echo "fuzz: $target: ${runs:-no} inputs, ${covered:-no coverage}, status $status"
done
exit $failed
