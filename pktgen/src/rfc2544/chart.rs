//! A line chart as inline SVG: colours and fonts are the page's, so that it reads in light and dark.
//!
//! It is drawn at the size at which a page shows it, 400 units wide, so text is as large as the page's.

use std::fmt::Write as _;

use super::html::escape;

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Of a digit, in the widest of the usual fonts.
const DIGIT: f64 = 7.6;
/// Colours and patterns of lines that the page's style has.
const COLOURS: usize = 6;
const PATTERNS: usize = 3;

/// A chart over a few named places.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    /// What the vertical axis is of, with its unit.
    pub(super) unit: &'static str,
    /// What the places are.
    pub(super) across: &'static str,
    pub(super) places: Vec<String>,
    pub(super) lines: Vec<Line>,
    /// Powers of ten are equally far apart.
    pub(super) logarithmic: bool,
}

/// One line of a [`Chart`].
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// One a place.
    pub(super) values: Vec<Option<f64>>,
    /// Number of the colour, from 0; after the last they come again in another pattern.
    pub(super) colour: usize,
    /// Of the other run.
    pub(super) dashed: bool,
}

impl Line {
    /// By which the page's style knows how it looks.
    fn class(&self) -> String {
        let colour = self.colour % COLOURS;
        let pattern = match self.colour / COLOURS % PATTERNS {
            0 => String::new(),
            more => format!(" p{more}"),
        };
        let old = if self.dashed { " old" } else { "" };
        format!("c{colour}{pattern}{old}")
    }
}

impl Chart {
    /// `<figure>` with title, legend and drawing; nothing if there is no value.
    pub(super) fn draw(&self) -> String {
        let values = || {
            self.lines
                .iter()
                .flat_map(|line| line.values.iter().flatten())
        };
        let wanted = |value: &&f64| value.is_finite() && (!self.logarithmic || **value > 0.0);
        let Some(most) = values().filter(wanted).copied().reduce(f64::max) else {
            return String::new();
        };
        let least = values().filter(wanted).copied().fold(most, f64::min);
        let axis = if self.logarithmic {
            Axis::logarithmic(least, most)
        } else {
            Axis::linear(most)
        };
        let mut svg = String::new();
        self.grid(&mut svg, &axis);
        for line in &self.lines {
            self.line(&mut svg, &axis, line);
        }
        let title = escape(&self.title);
        format!(
            "<figure><figcaption>{title}</figcaption>{}<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{title}\">{svg}</svg></figure>\n",
            self.legend()
        )
    }

    fn legend(&self) -> String {
        let entry = |line: &Line| {
            format!(
                "<li class=\"{}\"><svg viewBox=\"0 0 22 10\"><path d=\"M1 5H21\"/></svg>{}</li>",
                line.class(),
                escape(&line.name)
            )
        };
        let entries: String = self.lines.iter().map(entry).collect();
        format!("<ul class=\"legend\">{entries}</ul>")
    }

    fn grid(&self, svg: &mut String, axis: &Axis) {
        let right = WIDTH - RIGHT;
        for tick in &axis.ticks {
            let y = axis.place(*tick);
            let text = number(*tick);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
                LEFT - 6.0,
                y + 4.0
            );
        }
        for (index, place) in self.places.iter().enumerate().step_by(self.named()) {
            let _ = write!(
                svg,
                "<text class=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                self.x(index),
                HEIGHT - BOTTOM + 16.0,
                escape(place)
            );
        }
        let _ = write!(
            svg,
            "<text class=\"middle dim\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <text class=\"middle dim\" transform=\"translate(11 {:.1}) rotate(-90)\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 6.0,
            escape(self.across),
            f64::midpoint(TOP, HEIGHT - BOTTOM),
            escape(self.unit)
        );
    }

    fn line(&self, svg: &mut String, axis: &Axis, line: &Line) {
        let (mut path, mut dots) = (String::new(), String::new());
        for (index, value) in line.values.iter().enumerate() {
            // What was not measured is left out: the line goes on to the next point.
            let drawable = value.filter(|value| !self.logarithmic || *value > 0.0);
            let Some(value) = drawable else { continue };
            let (x, y) = (self.x(index), axis.place(value));
            let step = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{step}{x:.1} {y:.1}");
            let _ = write!(dots, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
        }
        let _ = write!(
            svg,
            "<g class=\"{}\"><title>{}</title><path d=\"{path}\"/>{dots}</g>",
            line.class(),
            escape(&line.name)
        );
    }

    /// Every how many places there is room for a name.
    fn named(&self) -> usize {
        let longest = self.places.iter().map(|place| place.chars().count()).max();
        let needed = (longest.unwrap_or(0) + 1) as f64 * DIGIT;
        let every = 1..=self.places.len();
        let mut every = every.filter(|step| *step as f64 * self.width() >= needed);
        every.next().unwrap_or_else(|| self.places.len().max(1))
    }

    /// Of a place.
    fn width(&self) -> f64 {
        (WIDTH - LEFT - RIGHT) / self.places.len().max(1) as f64
    }

    /// The middle of a place.
    fn x(&self, index: usize) -> f64 {
        LEFT + self.width() * (index as f64 + 0.5)
    }
}

/// The vertical axis.
#[derive(Clone, Debug)]
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// From 0 to at least `most`, by steps of 1, 2 or 5 times a power of ten.
    fn linear(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let power = 10f64.powf((most / 5.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = steps.into_iter().find(|step| most / step <= 5.0);
        let step = step.unwrap_or(power * 10.0);
        let count = (most / step).ceil();
        let ticks = (0..=5u8).map(f64::from).take_while(|n| *n <= count);
        Self {
            low: 0.0,
            high: step * count,
            logarithmic: false,
            ticks: ticks.map(|n| n * step).collect(),
        }
    }

    /// From a power of ten to another, or of fewer decades by steps of 1, 2 and 5.
    fn logarithmic(least: f64, most: f64) -> Self {
        let (low, high) = (least.log10().floor(), (most * 1.001).log10().ceil());
        let decades = high - low;
        let factors: &[f64] = if decades <= 2.0 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let mut ticks = Vec::new();
        let mut power = low;
        while power <= high {
            ticks.extend(factors.iter().map(|factor| factor * 10f64.powf(power)));
            power += 1.0;
        }
        ticks.retain(|tick| *tick <= 10f64.powf(high) * 1.001);
        Self {
            low,
            high,
            logarithmic: true,
            ticks,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic {
            value.log10()
        } else {
            value
        };
        let part = (value - self.low) / (self.high - self.low).max(f64::MIN_POSITIVE);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }
}

/// `0.25`, `1000`, `20k`: as few characters as tell ticks apart.
fn number(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value >= 1e4 {
        format!("{}k", value / 1e3)
    } else {
        let rounded = format!("{value:.4}");
        let trimmed = rounded.trim_end_matches('0').trim_end_matches('.');
        trimmed.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        for most in [0.03, 0.82, 1.0, 4.9, 5.1, 38.0, 99.0] {
            let axis = Axis::linear(most);
            assert!(
                axis.high >= most && axis.high <= most * 2.01,
                "{most}: {axis:?}"
            );
            assert!((2..=6).contains(&axis.ticks.len()), "{most}: {axis:?}");
        }
        assert_eq!(
            Axis::linear(0.82)
                .ticks
                .last()
                .copied()
                .map(number)
                .unwrap(),
            "1"
        );
        let axis = Axis::logarithmic(7.0, 2300.0);
        assert_eq!(axis.ticks.len(), 5);
        assert!(axis.place(7.0) > axis.place(2300.0) && axis.place(2300.0) >= TOP);
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.25, 5.0, 1000.0, 20e3, 1e6].map(number);
        assert_eq!(texts, ["0", "0.25", "5", "1000", "20k", "1M"]);
    }

    fn chart(places: Vec<String>, lines: usize) -> Chart {
        let line = |colour: usize| Line {
            name: colour.to_string(),
            values: vec![Some(1.0); places.len()],
            colour,
            dashed: false,
        };
        Chart {
            title: String::new(),
            unit: "Mpps",
            across: "bytes",
            lines: (0..lines).map(line).collect(),
            places,
            logarithmic: false,
        }
    }

    #[test]
    fn names_of_places_do_not_touch() {
        for (first, step, count, named) in [
            (1000, 35, 15, 8),
            (1_234_567, 1, 7, 4),
            (1_234_567, 1, 40, 5),
            (1000, 74, 7, 7),
            (64, 1, 1, 1),
        ] {
            let places = (0..count).map(|n| (first + n * step).to_string());
            let chart = chart(places.collect(), 1);
            let drawn = chart.draw();
            let names: Vec<(f64, usize)> = drawn
                .split("<text class=\"middle\" x=\"")
                .skip(1)
                .map(|rest| {
                    let (x, rest) = rest.split_once('"').unwrap();
                    let name = rest.split_once('>').unwrap().1.split_once('<').unwrap().0;
                    (x.parse().unwrap(), name.len())
                })
                .collect();
            assert_eq!(names.len(), named, "{first} {count}");
            for pair in names.windows(2) {
                let (length, between) = (pair[0].1.max(pair[1].1), pair[1].0 - pair[0].0);
                assert!(
                    between >= length as f64 * DIGIT,
                    "{first} {count}: {names:?}"
                );
            }
        }
    }

    #[test]
    fn many_lines_look_different_and_the_style_has_them_all() {
        let drawn = chart(vec!["64".to_owned()], COLOURS * PATTERNS).draw();
        let mut classes: Vec<&str> = drawn
            .split("<g class=\"")
            .skip(1)
            .map(|rest| rest.split_once('"').unwrap().0)
            .collect();
        let style = include_str!("report.css");
        for class in classes.iter().flat_map(|classes| classes.split(' ')) {
            assert!(style.contains(&format!(".{class} ")), "{class}");
        }
        classes.sort_unstable();
        classes.dedup();
        assert_eq!(classes.len(), COLOURS * PATTERNS);
    }

    #[test]
    fn what_was_not_measured_is_skipped_and_names_are_escaped() {
        let chart = Chart {
            title: "<a>".to_owned(),
            unit: "Mpps",
            across: "bytes",
            places: ["64", "128", "256"].map(str::to_owned).to_vec(),
            lines: vec![Line {
                name: "a & b".to_owned(),
                values: vec![Some(1.0), None, Some(2.0)],
                colour: 0,
                dashed: false,
            }],
            logarithmic: false,
        };
        let drawn = chart.draw();
        let line = drawn.split("<g class").nth(1).unwrap();
        assert_eq!(
            (line.matches('M').count(), line.matches('L').count()),
            (1, 1)
        );
        assert!(drawn.contains("a &amp; b") && drawn.contains("&lt;a&gt;"));
        let empty = Chart {
            lines: Vec::new(),
            ..chart
        };
        assert_eq!(empty.draw(), "");
    }
}
