//! Where more load stops to pay. Pure.

/// One load of a sweep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Operations a second.
    pub iops: f64,
    /// Mean latency in microseconds.
    pub mean: f64,
}

impl Point {
    /// Throughput over latency ("power", after Kleinrock).
    fn power(&self) -> f64 {
        if self.mean > 0.0 { self.iops / self.mean } else { 0.0 }
    }
}

/// Of the largest rate, this share counts as saturated.
const SATURATED: f64 = 0.95;

/// Which point is the knee: the one with the most throughput for its latency. Before it, more load brings more throughput than
/// latency, and beyond it the other way round. None of no points.
pub fn knee(points: &[Point]) -> Option<usize> {
    (0..points.len()).max_by(|a, b| points[*a].power().total_cmp(&points[*b].power()).then(b.cmp(a)))
}

/// The first point that does (nearly) as much as any. None of no points.
pub fn saturation(points: &[Point]) -> Option<usize> {
    let most = points.iter().map(|point| point.iops).fold(0.0, f64::max);
    points.iter().position(|point| point.iops >= most * SATURATED)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that takes 10 us for each operation, in a loop that takes 100 us elsewhere: by Little's law depth N does
    /// N / max(110, 10 N) operations a microsecond.
    fn closed(depth: f64) -> Point {
        let mean = f64::max(110.0, 10.0 * depth);
        Point { iops: depth / mean * 1e6, mean }
    }

    #[test]
    fn the_knee_is_where_the_server_is_just_busy() {
        let points: Vec<Point> = [1.0, 2.0, 4.0, 8.0, 11.0, 16.0, 32.0, 64.0].map(closed).to_vec();
        assert_eq!((knee(&points), saturation(&points)), (Some(4), Some(4)));
        assert_eq!((knee(&[]), saturation(&[])), (None, None));
        let dead = Point { iops: 0.0, mean: 0.0 };
        assert_eq!((knee(&[dead, dead]), saturation(&[dead])), (Some(0), Some(0)));
    }
}
