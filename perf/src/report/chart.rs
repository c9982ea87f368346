//! A chart of latency over percentiles as SVG: one more nine to each step to the right, latencies in powers of ten.

use core::fmt::Write;

use crate::run::Latencies;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
/// Told apart by people who do not see all colours.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"];

/// A curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    name: String,
    /// Quantile below one, and microseconds.
    points: Vec<(f64, f64)>,
}

impl Series {
    /// Of latencies, as far to the right as their number allows.
    #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
    pub fn new(name: impl Into<String>, latencies: &Latencies) -> Self {
        let known = 1.0 - 1.0 / latencies.count().max(1) as f64;
        let steps = (0_u32..).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 20.0));
        let quantiles = steps.take_while(|quantile| *quantile <= known);
        let points = quantiles.map(|quantile| (quantile, latencies.quantile(quantile).max(0.001)));
        let points = if latencies.count() == 0 { Vec::new() } else { points.collect() };
        Self { name: name.into(), points }
    }
}

/// How far to the right: 0 at the left, one for each nine.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

struct Axes {
    nines: f64,
    low: f64,
    high: f64,
}

impl Axes {
    fn of(series: &[Series]) -> Self {
        let points = || series.iter().flat_map(|one| &one.points);
        let right = points().map(|(quantile, _)| nines(*quantile)).fold(1.0, f64::max);
        let low = points().map(|(_, micros)| micros.log10().floor()).fold(f64::MAX, f64::min).min(6.0);
        let high = points().map(|(_, micros)| micros.log10().ceil()).fold(f64::MIN, f64::max).max(low + 1.0);
        Self { nines: right.ceil(), low, high }
    }

    fn x(&self, quantile: f64) -> f64 {
        LEFT + nines(quantile) / self.nines * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, micros: f64) -> f64 {
        let share = (micros.log10() - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

/// The chart.
pub fn chart(title: &str, series: &[Series]) -> String {
    let axes = Axes::of(series);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    // Writing to a string does not fail.
    let _ = grid(&mut svg, &axes);
    for (index, one) in series.iter().enumerate() {
        let _ = curve(&mut svg, &axes, one, COLOURS[index % COLOURS.len()], index);
    }
    svg + "</svg>\n"
}

fn grid(svg: &mut String, axes: &Axes) -> core::fmt::Result {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut nine = 0.0;
    while nine <= axes.nines {
        let quantile = 1.0 - 10_f64.powf(-nine);
        let x = axes.x(quantile);
        // 0, 90, 99, 99.9: a whole nine has as many digits as it needs.
        let label = match nine {
            0.0 => "0".to_owned(),
            nine if nine <= 2.0 => format!("{:.0}", quantile * 100.0),
            nine => format!("{:.1$}", quantile * 100.0, [1, 2, 3, 4, 5, 6, 7][(nine as usize - 3).min(6)]),
        };
        writeln!(svg, "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>")?;
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label} %</text>", bottom + 18.0)?;
        nine += 1.0;
    }
    let mut power = axes.low;
    while power <= axes.high {
        let micros = 10_f64.powf(power);
        let y = axes.y(micros);
        writeln!(svg, "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>")?;
        let label = duration(micros);
        writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, y + 4.0)?;
        power += 1.0;
    }
    let middle = (LEFT + right) / 2.0;
    writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">percentile</text>", bottom + 40.0)
}

fn duration(micros: f64) -> String {
    match micros {
        micros if micros >= 1e6 => format!("{} s", micros / 1e6),
        micros if micros >= 1e3 => format!("{} ms", micros / 1e3),
        micros if micros >= 1.0 => format!("{micros} us"),
        micros => format!("{:.0} ns", micros * 1e3),
    }
}

fn curve(svg: &mut String, axes: &Axes, series: &Series, colour: &str, index: usize) -> core::fmt::Result {
    let at = |(quantile, micros): &(f64, f64)| format!("{:.1},{:.1}", axes.x(*quantile), axes.y(*micros));
    let points: Vec<String> = series.points.iter().map(at).collect();
    writeln!(
        svg,
        "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" points=\"{}\"/>",
        points.join(" ")
    )?;
    let y = TOP + 16.0 * f64::from(u8::try_from(index).unwrap_or(u8::MAX)) + 4.0;
    let (from, to, text) = (LEFT + 10.0, LEFT + 30.0, LEFT + 36.0);
    writeln!(
        svg,
        "<line x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"3\"/>"
    )?;
    writeln!(svg, "<text x=\"{text}\" y=\"{}\">{}</text>", y + 4.0, escape(&series.name))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn curves_lie_in_the_picture_and_names_are_escaped() {
        let mut latencies = Latencies::new();
        (1..=10_000_u64).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        let svg =
            chart("a <b> & c", &[Series::new("one", &latencies), Series::new("none", &Latencies::new())]);
        assert!(
            svg.contains("a &lt;b&gt; &amp; c") && svg.contains("99.9 %") && svg.contains("10 ms"),
            "{svg}"
        );
        let points = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a curve");
        let points: Vec<(f64, f64)> = points
            .split(' ')
            .map(|point| point.split_once(',').expect("two"))
            .map(|(x, y)| (x.parse().expect("x"), y.parse().expect("y")))
            .collect();
        assert!(points.len() > 60, "four nines in steps of a twentieth");
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 >= pair[1].1), "{points:?}");
        assert!(points.iter().all(|(x, y)| (LEFT..=WIDTH).contains(x) && (0.0..=HEIGHT).contains(y)));
    }
}
