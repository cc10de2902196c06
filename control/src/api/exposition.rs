//! Prometheus's text format, version 0.0.4, written.
//!
//! By hand: the crate `prometheus-client` writes OpenMetrics, in which a counter's family has another name
//! than its samples, so that tools for the older format (`promtool check metrics`) take it for several faults.

use std::fmt::{self, Display, Write};

/// The content type of what [`Exposition::finish`] returns.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What may be done with the values of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows; the name ends in `_total`.
    Counter,
    Gauge,
    Histogram,
}

/// Names and values of labels; a label without a value is not written.
pub(super) type Labels<'l> = &'l [(&'static str, &'l dyn Display)];

/// The text, as far as it has been written.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family: all samples of one name, which must differ in their labels.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.trim().replace('\\', r"\\").replace('\n', r"\n");
        self.text
            .push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family {
            name: name.to_owned(),
            text: &mut self.text,
        }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// A family that is being written.
#[derive(Debug)]
pub(super) struct Family<'e> {
    name: String,
    text: &'e mut String,
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.named("", labels, value);
    }

    /// A histogram: upper bounds with the counts of all values up to each, the sum and the number of
    /// all values.
    pub(super) fn histogram(
        &mut self,
        buckets: impl IntoIterator<Item = (f64, u64)>,
        sum: f64,
        count: u64,
    ) {
        for (bound, values) in buckets {
            self.named("_bucket", &[("le", &bound)], values);
        }
        self.named("_bucket", &[("le", &"+Inf")], count);
        self.named("_sum", &[], sum);
        self.named("_count", &[], count);
    }

    fn named(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) {
        self.text.push_str(&self.name);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (name, label) in labels {
            let before = self.text.len();
            self.text.push(separator);
            self.text.push_str(name);
            self.text.push_str("=\"");
            let start = self.text.len();
            // Writing to a string does not fail.
            let _ = write!(Escaped(self.text), "{label}");
            if self.text.len() == start {
                self.text.truncate(before);
                continue;
            }
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// The value of a label: backslashes, quotes and newlines escaped.
struct Escaped<'t>(&'t mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for character in part.chars() {
            match character {
                '\\' => self.0.push_str(r"\\"),
                '"' => self.0.push_str(r#"\""#),
                '\n' => self.0.push_str(r"\n"),
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_samples_and_escapes() {
        let mut exposition = Exposition::default();
        let mut family = exposition.family("a_total", Kind::Counter, "One \\ two\nthree.");
        family.sample(&[], 7);
        family.sample(&[("x", &"C:\\\n\"q\""), ("none", &""), ("y", &3)], 8);
        let mut family = exposition.family("b_seconds", Kind::Histogram, "H.");
        family.histogram([(0.00025, 1), (1.0, 2)], 2.5, 3);
        let expected = "\
# HELP a_total One \\\\ two\\nthree.
# TYPE a_total counter
a_total 7
a_total{x=\"C:\\\\\\n\\\"q\\\"\",y=\"3\"} 8
# HELP b_seconds H.
# TYPE b_seconds histogram
b_seconds_bucket{le=\"0.00025\"} 1
b_seconds_bucket{le=\"1\"} 2
b_seconds_bucket{le=\"+Inf\"} 3
b_seconds_sum 2.5
b_seconds_count 3
";
        assert_eq!(exposition.finish(), expected);
    }
}
