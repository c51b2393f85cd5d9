//! Owns the test whether a figure rises: pure, over readings with their times.
//! Must not know what was read.
//!
//! # The method
//!
//! The time is divided into [`WINDOWS`] windows of the same length. The *floor* of a window is its lowest reading: what is there
//! when the passing need is over. The level at the begin is the median of the floors of the first quarter, the level at the
//! end that of the last quarter. The figure rises if the difference is more than the tolerance.
//!
//! - Noise does not matter, because floors are compared, and the median ignores one odd window of three.
//! - A sawtooth does not matter if it comes down once in a window: its floors are the same.
//! - A leak has risen by three quarters of its whole growth between the two levels.
//! - A step counts in full, unless it comes in the last twelfth. What rises only then is found by a longer run.
//!
//! An example with one reading in each window, and the tolerance 3: `5 5 9 5 5 5 5 5 5 6 5 5` is flat (5 to 5, the 9 is one odd
//! window), `5 5 5 6 6 7 7 8 8 9 9 9` rises (5 to 9).

/// Windows of a run.
pub(super) const WINDOWS: usize = 12;
/// Windows of a quarter.
const QUARTER: usize = WINDOWS / 4;

/// A reading and its time, in milliseconds.
pub(super) type Point = (u64, f64);

/// The result of the test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trend {
    /// The level at the begin.
    pub(super) begin: f64,
    /// The level at the end.
    pub(super) end: f64,
    /// The highest reading.
    pub(super) highest: f64,
    /// The growth that is still flat.
    pub(super) tolerance: f64,
}

/// The growth that counts as flat: the larger of a fixed amount and a part of the level at the begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tolerance {
    /// In the unit of the figure.
    pub(super) fixed: f64,
    /// From 0 to 1.
    pub(super) part: f64,
}

impl Trend {
    /// What the readings from `from` to `to` (milliseconds) show; `None` if a quarter at the ends has no reading.
    pub(super) fn of(points: &[Point], from: u64, to: u64, tolerance: Tolerance) -> Option<Self> {
        let floors = floors(points, from, to);
        let begin = median(&floors[..QUARTER])?;
        let end = median(&floors[WINDOWS - QUARTER..])?;
        let highest = points.iter().map(|(_, value)| *value).fold(begin, f64::max);
        Some(Self { begin, end, highest, tolerance: tolerance.fixed.max(tolerance.part * begin) })
    }

    /// How much it rose.
    pub(super) fn growth(&self) -> f64 {
        self.end - self.begin
    }

    /// Whether it rose more than it may.
    pub(super) fn rises(&self) -> bool {
        self.growth() > self.tolerance
    }
}

/// The lowest reading of each window.
fn floors(points: &[Point], from: u64, to: u64) -> [Option<f64>; WINDOWS] {
    let mut floors = [None; WINDOWS];
    let length = (to.saturating_sub(from) / WINDOWS as u64).max(1);
    for (at, value) in points.iter().filter(|(at, _)| (from..to).contains(at)) {
        let window = usize::try_from((at - from) / length).unwrap_or(WINDOWS).min(WINDOWS - 1);
        floors[window] = Some(floors[window].map_or(*value, |floor: f64| floor.min(*value)));
    }
    floors
}

/// The median of those that are there; of two the lower one.
fn median(floors: &[Option<f64>]) -> Option<f64> {
    let mut known: Vec<f64> = floors.iter().copied().flatten().collect();
    known.sort_by(f64::total_cmp);
    known.get(known.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance { fixed: 10.0, part: 0.1 };
    /// A reading each second.
    const READINGS: u64 = 600;

    fn series(value: impl Fn(u64) -> f64) -> Vec<Point> {
        (0..READINGS).map(|second| (second * 1_000, value(second))).collect()
    }

    fn trend(points: &[Point]) -> Trend {
        Trend::of(points, 0, READINGS * 1_000, TOLERANCE).expect("there are readings")
    }

    /// Between 0 and 1, the same for each call with the same number.
    fn noise(second: u64) -> f64 {
        fastrand::Rng::with_seed(second).f64()
    }

    #[test]
    fn series_that_are_flat_and_series_that_rise() {
        let step = |at: u64| move |second: u64| if second < at { 200.0 } else { 230.0 };
        // Name, whether it rises, the series. The tolerance of a level of 200 is 20.
        #[expect(clippy::type_complexity, reason = "a table of series")]
        let table: [(&str, bool, Box<dyn Fn(u64) -> f64>); 14] = [
            ("a constant", false, Box::new(|_| 200.0)),
            ("noise as high as the level", false, Box::new(|second| 200.0 + 200.0 * noise(second))),
            ("a leak of 0.05 per second", true, Box::new(|second| 200.0 + 0.05 * second as f64)),
            ("the same in noise", true, Box::new(|second| 200.0 + 0.05 * second as f64 + 50.0 * noise(second))),
            ("a leak within the tolerance", false, Box::new(|second| 200.0 + 0.02 * second as f64)),
            ("a sawtooth", false, Box::new(|second| 200.0 + 4.0 * (second % 40) as f64)),
            (
                "a sawtooth that rises",
                true,
                Box::new(|second| 200.0 + 4.0 * (second % 40) as f64 + second as f64 / 15.0),
            ),
            ("a step in the first third", true, Box::new(step(150))),
            ("a step in the middle", true, Box::new(step(300))),
            ("a step in the last quarter", true, Box::new(step(500))),
            ("a step back", false, Box::new(|second| if second < 300 { 230.0 } else { 200.0 })),
            ("a peak in the last window", false, Box::new(step(560))),
            (
                "a dip near the end of a leak",
                true,
                Box::new(|second| if (480..490).contains(&second) { 150.0 } else { 200.0 + 0.05 * second as f64 }),
            ),
            ("a fall", false, Box::new(|second| 400.0 - second as f64 / 3.0)),
        ];
        for (name, rises, series_of) in table {
            let found = trend(&series(series_of));
            assert_eq!(found.rises(), rises, "{name}: {found:?}");
        }
    }

    #[test]
    fn the_levels_are_medians_of_floors() {
        let of = |values: [f64; WINDOWS]| trend(&series(|second| values[(second / 50) as usize]));
        let found = of([5.0, 5.0, 9.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 6.0, 5.0, 5.0]);
        assert_eq!((found.begin, found.end, found.highest, found.growth()), (5.0, 5.0, 9.0, 0.0));
        let found = of([5.0, 5.0, 5.0, 6.0, 6.0, 7.0, 7.0, 8.0, 8.0, 9.0, 9.0, 9.0]);
        assert_eq!((found.begin, found.end), (5.0, 9.0));
        // A fixed tolerance where a part of the level is less.
        assert_eq!(found.tolerance, 10.0);
    }

    #[test]
    fn too_few_readings_are_no_result() {
        let all = series(|_| 1.0);
        let last = READINGS * 1_000;
        assert_eq!(Trend::of(&[], 0, last, TOLERANCE), None);
        assert_eq!(Trend::of(&all[..300], 0, last, TOLERANCE), None, "nothing at the end");
        assert_eq!(Trend::of(&all[300..], 0, last, TOLERANCE), None, "nothing at the begin");
        assert!(Trend::of(&[all[0], all[599]], 0, last, TOLERANCE).is_some(), "one at each end");
    }
}
