//! A percentile log as HdrHistogram's tools write and plot it (`.hgrm`).

use core::fmt::Write;

use crate::run::Latencies;

/// Steps to each halving of what is left to a hundred percent.
const TICKS: u32 = 5;

/// The log; values are in microseconds.
#[expect(clippy::cast_precision_loss, reason = "values for people")]
pub fn hgrm(latencies: &Latencies) -> String {
    let histogram = latencies.histogram();
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to() as f64 / 1e3, step.quantile_iterated_to());
        // Writing to a string does not fail.
        let _ = if quantile < 1.0 {
            writeln!(text, "{value:12.3} {quantile:2.12} {count:10} {:14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(text, "{value:12.3} {quantile:2.12} {count:10}")
        };
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]",
        latencies.mean(),
        latencies.deviation(),
        latencies.max(),
        latencies.count(),
        histogram.buckets(),
        2048,
    );
    text
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn it_has_rising_values_and_counts_and_the_usual_end() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        let text = hgrm(&latencies);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|field| field.parse().expect("a number")).collect())
            .collect();
        assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][2] <= pair[1][2]), "{text}");
        let last = rows.last().expect("rows");
        assert!((last[0] - 1000.0).abs() < 1.0 && last[1..] == [1.0, 1000.0], "{last:?}");
        assert!(text.contains("Total count    =         1000]"), "{text}");
        assert!(hgrm(&Latencies::new()).contains("Total count    =            0]"));
    }
}
