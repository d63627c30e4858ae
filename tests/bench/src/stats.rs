//! Median and spread.

/// Of a set of values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The least.
    pub(crate) min: f64,
    /// A quarter is below.
    pub(crate) lower: f64,
    /// Half is below.
    pub(crate) median: f64,
    /// A quarter is above.
    pub(crate) upper: f64,
    /// The greatest.
    pub(crate) max: f64,
    /// How many there are.
    pub(crate) count: usize,
}

impl Spread {
    /// `None` of no values. Quartiles by linear interpolation.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|it| it.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            min: *sorted.first()?,
            lower: quantile(&sorted, 1)?,
            median: quantile(&sorted, 2)?,
            upper: quantile(&sorted, 3)?,
            max: *sorted.last()?,
            count: sorted.len(),
        })
    }
}

/// The value below which `quarters` quarters of the sorted values are.
fn quantile(sorted: &[f64], quarters: usize) -> Option<f64> {
    let steps = sorted.len().checked_sub(1)? * quarters;
    let (low, part) = (steps / 4, steps % 4);
    let below = *sorted.get(low)?;
    let above = sorted.get(low + 1).copied().unwrap_or(below);
    #[expect(clippy::cast_precision_loss, reason = "0 to 3")]
    let weight = part as f64 / 4.0;
    Some(below + (above - below) * weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        let expected = Spread {
            min: 1.0,
            lower: 1.75,
            median: 2.5,
            upper: 3.25,
            max: 4.0,
            count: 4,
        };
        assert_eq!(spread, expected);
    }

    #[test]
    fn one_value_is_all_of_them() {
        let spread = Spread::of([7.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (7.0, 7.0, 7.0));
    }

    #[test]
    fn what_is_no_number_does_not_count() {
        assert_eq!(Spread::of([f64::NAN, f64::INFINITY]), None);
        assert_eq!(Spread::of([]), None);
    }
}
