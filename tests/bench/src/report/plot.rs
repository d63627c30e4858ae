//! One plot of all cases: a bar a contestant up to the median, with a line from the least to the greatest value.

use std::{collections::BTreeMap, path::Path};

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{error::BenchError, machine::Machine, rounds::Outcome};

// Pixels.
const WIDTH: i32 = 960;
const BAR: i32 = 18;
/// The line with a case's name, and the room below its bars.
const NAME: i32 = 22;
const GAP: i32 = 14;
const LEFT: i32 = 130;
const RIGHT: i32 = 120;
const TOP: i32 = 56;
const BOTTOM: i32 = 40;

/// Distinct also for those who don't see all colours (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(120, 120, 120),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws the file anew.
pub(super) fn draw(
    path: &Path,
    title: &str,
    machine: &Machine,
    command: &str,
    outcomes: &[Outcome],
) -> Result<(), BenchError> {
    let bars: i32 = outcomes.iter().map(height_of).sum();
    let height = TOP + bars + BOTTOM;
    let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
    let area = SVGBackend::new(path, size).into_drawing_area();
    let sheet = Sheet { area: &area };
    let drawn = area
        .fill(&WHITE)
        .and_then(|()| sheet.text(title, (12, 18), 22, HPos::Left))
        .and_then(|()| sheet.text(&machine.line(), (12, 40), 14, HPos::Left))
        .and_then(|()| sheet.cases(outcomes))
        .and_then(|()| sheet.text(command, (12, height - 16), 14, HPos::Left))
        .and_then(|()| area.present());
    drawn.map_err(|error| BenchError::Plot {
        file: path.display().to_string(),
        what: error.to_string(),
    })
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

struct Sheet<'a, 'b> {
    area: &'a Area<'b>,
}

impl Sheet<'_, '_> {
    fn cases(&self, outcomes: &[Outcome]) -> Drawn {
        let scales = scales(outcomes);
        let mut top = TOP;
        for outcome in outcomes {
            let most = scales.get(outcome.unit.name).copied().unwrap_or(1.0);
            self.case(outcome, top, most)?;
            top += height_of(outcome);
        }
        Ok(())
    }

    fn case(&self, outcome: &Outcome, top: i32, most: f64) -> Drawn {
        let less = if outcome.unit.less {
            " (less is better)"
        } else {
            ""
        };
        let name = format!("{}{less}", outcome.case);
        self.text(&name, (12, top + NAME / 2), 17, HPos::Left)?;
        let mut y = top + NAME;
        for (series, colour) in outcome.series.iter().zip(COLOURS.iter().cycle()) {
            let middle = y + BAR / 2;
            self.text(&series.name, (LEFT - 8, middle), 15, HPos::Right)?;
            if let Some(values) = series.values() {
                let x = |value: f64| LEFT + pixels(value / most);
                let bar = [(LEFT, y + 2), (x(values.median), y + BAR - 2)];
                self.area.draw(&Rectangle::new(bar, colour.filled()))?;
                let line = [(x(values.min), middle), (x(values.max), middle)];
                self.area.draw(&PathElement::new(line, BLACK))?;
                for end in [values.min, values.max] {
                    let tick = [(x(end), middle - 4), (x(end), middle + 4)];
                    self.area.draw(&PathElement::new(tick, BLACK))?;
                }
                let text = format!("{:.3} {}", values.median, outcome.unit.name);
                self.text(&text, (x(values.max) + 8, middle), 15, HPos::Left)?;
            } else {
                self.text("failed", (LEFT + 8, middle), 15, HPos::Left)?;
            }
            y += BAR;
        }
        Ok(())
    }

    fn text(&self, text: &str, at: (i32, i32), size: i32, horizontal: HPos) -> Drawn {
        let style = TextStyle::from(("sans-serif", size).into_font())
            .pos(Pos::new(horizontal, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), at, style))
    }
}

/// The greatest value of each unit: bars of one unit can be compared.
fn scales(outcomes: &[Outcome]) -> BTreeMap<&'static str, f64> {
    let mut most = BTreeMap::new();
    for outcome in outcomes {
        let values = outcome.series.iter().filter_map(|it| it.values());
        let greatest = values.map(|it| it.max).fold(f64::MIN_POSITIVE, f64::max);
        let entry = most.entry(outcome.unit.name).or_insert(greatest);
        *entry = greatest.max(*entry);
    }
    most
}

/// Of the room for bars.
fn pixels(part: f64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "within the drawing")]
    let pixels = (part.clamp(0.0, 1.0) * f64::from(WIDTH - LEFT - RIGHT)) as i32;
    pixels
}

fn height_of(outcome: &Outcome) -> i32 {
    NAME + i32::try_from(outcome.series.len()).unwrap_or(0) * BAR + GAP
}
