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

failed=0
for target in "${targets[@]}"; do
    mkdir -p "$place/corpus/$target" "$place/artifacts"
    status=0
    # The limit of CPU time ends it; a machine that is busy does not shorten it.
    (
        ulimit -t "$seconds"
        exec nice -n 19 "$place/$triple/release/$target" -max_len=8192 -rss_limit_mb=2048 -timeout=25 -verbosity=1 \
            -artifact_prefix="$place/artifacts/$target-" "$place/corpus/$target" "corpus/$target"
    ) >"$place/$target.log" 2>&1 || status=$?
    runs=$(grep -o '^#[0-9]*' "$place/$target.log" | tail -1)
    covered=$(grep -o 'cov: [0-9]*' "$place/$target.log" | tail -1)
    # 137 and 152: killed by the limit.
    if [ "$status" -ne 137 ] && [ "$status" -ne 152 ]; then
        failed=1
        tail -20 "$place/$target.log"
    fi
    echo "fuzz: $target: ${runs#\#} inputs, ${covered:-no coverage}, status $status"
done
exit $failed
