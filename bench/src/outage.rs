//! How long nobody answered: what a client saw that asks every millisecond while one director follows another.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// When it was sent, since the first one.
    pub at: Duration,
    /// Who answered, in the order in which the answers came.
    pub answers: Vec<String>,
}

/// What a client saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    pub sent: usize,
    pub lost: usize,
    /// Requests with several answers: two directors had the address.
    pub twice: usize,
    /// From the sending of an answered request to that of the next one that was answered: the longest, in milliseconds.
    pub gap: f64,
    /// The longest time in which the client itself sent nothing, in milliseconds. A `gap` can be told no finer.
    pub pause: f64,
    /// Who answered, each time that it was somebody else.
    pub answered: Vec<String>,
}

impl Outage {
    /// Of requests in the order in which they were sent.
    #[must_use]
    pub fn of(requests: &[Request]) -> Self {
        let answered: Vec<_> = requests
            .iter()
            .filter_map(|request| request.answers.first().map(|name| (request.at, name)))
            .collect();
        let mut names: Vec<String> = answered.iter().map(|(_, name)| (*name).clone()).collect();
        names.dedup();
        Self {
            sent: requests.len(),
            lost: requests.len() - answered.len(),
            twice: requests
                .iter()
                .filter(|request| request.answers.len() > 1)
                .count(),
            gap: longest(answered.iter().map(|(at, _)| *at)),
            pause: longest(requests.iter().map(|request| request.at)),
            answered: names,
        }
    }
}

/// The longest time between two that follow each other, in milliseconds.
fn longest(times: impl Iterator<Item = Duration> + Clone) -> f64 {
    let later = times.clone().skip(1);
    let longest = times.zip(later).map(|(one, next)| next - one).max();
    longest.unwrap_or_default().as_secs_f64() * 1000.0
}

/// A request: its number. An answer: the same, and who gives it.
#[must_use]
pub fn answer(request: &[u8], name: &str) -> Vec<u8> {
    [request, name.as_bytes()].concat()
}

/// The number and the name of an answer; `None`: it is not one.
#[must_use]
pub fn read_answer(datagram: &[u8]) -> Option<(u64, String)> {
    let (number, name) = datagram.split_first_chunk()?;
    let name = String::from_utf8(name.to_vec()).ok()?;
    Some((u64::from_be_bytes(*number), name))
}

/// Requests by number, with the answers to them.
#[must_use]
pub fn join(sent: &[Duration], answers: Vec<(u64, String)>) -> Vec<Request> {
    let mut by_number: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (number, name) in answers {
        by_number.entry(number).or_default().push(name);
    }
    (0..)
        .zip(sent)
        .map(|(number, at)| Request {
            at: *at,
            answers: by_number.remove(&number).unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sent: &[u64], answers: &[(u64, &str)]) -> Outage {
        let sent: Vec<_> = sent.iter().map(|at| Duration::from_millis(*at)).collect();
        let answers = answers.iter().map(|(number, name)| {
            let answer = answer(&number.to_be_bytes(), name);
            read_answer(&answer).unwrap()
        });
        Outage::of(&join(&sent, answers.collect()))
    }

    #[test]
    fn from_the_last_answered_to_the_first_newly_answered() {
        let outage = seen(
            &[0, 1, 2, 3, 4, 6],
            &[(0, "a"), (1, "a"), (4, "b"), (5, "b")],
        );
        let expected = Outage {
            sent: 6,
            lost: 2,
            twice: 0,
            gap: 3.0,
            pause: 2.0,
            answered: vec!["a".into(), "b".into()],
        };
        assert_eq!(outage, expected);
    }

    #[test]
    fn two_that_answer() {
        let outage = seen(&[0, 1, 2], &[(0, "a"), (1, "b"), (1, "a"), (2, "a")]);
        assert_eq!(outage.twice, 1);
        assert_eq!(outage.answered, ["a", "b", "a"]);
        assert_eq!(outage.lost, 0);
    }

    #[test]
    fn nobody_answers() {
        assert_eq!(seen(&[0, 1], &[]).lost, 2);
        assert_eq!(seen(&[0, 1], &[]).gap, 0.0);
        assert_eq!(read_answer(b"short"), None);
    }
}
