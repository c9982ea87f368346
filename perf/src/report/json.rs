//! JSON, in the shape that perf/README.md documents.

use serde_json::{Map, Value, json};

use super::Results;
use crate::run::{Latencies, Layer, Loop, Steadiness};

/// The results as JSON.
pub fn json(results: &Results) -> Value {
    let outcome = &results.outcome;
    let latency: Map<String, Value> =
        results.latencies().iter().map(|(name, one)| ((*name).to_owned(), latencies(one))).collect();
    let windows = outcome.measurement.windows();
    json!({
        "format": "gemel-perf/1",
        "targets": results.targets,
        "sessions": results.sessions,
        "job": job(results),
        "iops": outcome.iops(),
        "bytes_per_second": outcome.bytes_per_second(),
        "errors": outcome.errors,
        "first_error": outcome.first_error,
        "unstarted": outcome.unstarted,
        "steady": steady(outcome.steadiness),
        "latency_us": latency,
        "layers_us": layers(results),
        "windows": {
            "seconds": outcome.measurement.window().as_secs_f64(),
            "operations": windows.iter().map(|window| window.operations).collect::<Vec<_>>(),
        },
        "cpu": cpu(results),
    })
}

fn job(results: &Results) -> Value {
    let job = &results.job;
    let shape = match job.shape {
        Loop::Closed { depth } => json!({"kind": "closed", "depth": depth}),
        Loop::Open { rate, spacing, depth } => {
            json!({"kind": "open", "rate": rate, "arrivals": spacing.to_string(), "depth": depth})
        }
    };
    json!({
        "mix": job.workload.mix.to_string(),
        "sizes": job.workload.sizes.to_string(),
        "pattern": job.workload.pattern.to_string(),
        "span": job.workload.span.map(|span| span.bytes()),
        "loop": shape,
        "warm_up_s": job.warm_up.as_secs_f64(),
        "settle_s": job.settle.map(|most| most.as_secs_f64()),
        "time_s": job.time.as_secs_f64(),
        "seed": job.seed,
    })
}

fn latencies(of: &Latencies) -> Value {
    json!({
        "count": of.count(), "mean": of.mean(), "deviation": of.deviation(), "min": of.min(), "p50": of.quantile(0.5),
        "p90": of.quantile(0.9), "p99": of.quantile(0.99), "p999": of.quantile(0.999), "p9999": of.quantile(0.9999),
        "max": of.max(),
    })
}

fn steady(steadiness: Steadiness) -> Value {
    match steadiness {
        Steadiness::TooShort => json!({"state": steadiness.name()}),
        Steadiness::Steady(spread) | Steadiness::Unsteady(spread) => {
            json!({"state": steadiness.name(), "range": spread.range, "slope": spread.slope})
        }
    }
}

fn layers(results: &Results) -> Value {
    let seen = &results.outcome.measurement;
    let whole: f64 = Layer::ALL.iter().map(|layer| seen.layer(*layer).mean()).sum();
    let one = |layer: Layer| {
        let of = seen.layer(layer);
        let share = if whole > 0.0 { of.mean() / whole } else { 0.0 };
        let figures =
            json!({"mean": of.mean(), "p50": of.quantile(0.5), "p99": of.quantile(0.99), "share": share});
        (layer.name().to_owned(), figures)
    };
    Value::Object(Layer::ALL.into_iter().map(one).collect())
}

fn cpu(results: &Results) -> Value {
    let costs = &results.costs;
    let far = costs.far_cpu.map(|cpu| {
        let layers: Vec<Value> = costs
            .far_layers
            .iter()
            .map(|layer| {
                json!({"name": layer.name, "operation": layer.operation, "count": layer.count, "mean_us": layer.mean})
            })
            .collect();
        json!({
            "seconds": cpu.as_secs_f64(),
            "us_per_io": results.micros_each(cpu),
            "busy_us_per_io": costs.far_busy.map(|busy| results.micros_each(busy)),
            "layers": layers,
        })
    });
    json!({
        "own": {
            "seconds": costs.own_cpu.as_secs_f64(),
            "us_per_io": results.micros_each(costs.own_cpu),
            "busy_us_per_io": results.micros_each(costs.own_busy),
        },
        "target": far,
    })
}
