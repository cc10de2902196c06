//! `~SEQ(name, start, step, end)` and `~LST(name, value, …)`.

/// What one step sets: names and values.
pub(super) type Step = Vec<(String, String)>;

const MOST_STEPS: usize = 100_000;
const SEQUENCE: &str = "~SEQ(NAME, [START, [STEP,]] END)";
const LIST: &str = "~LST(NAME, VALUE, …) or ~LST({NAME, …}, {VALUE, …}, …)";

/// The steps of a whole specification.
///
/// # Errors
///
/// What was expected.
pub(super) fn steps(specification: &str) -> Result<Vec<Step>, String> {
    let inside = |prefix: &str| {
        let rest = specification.strip_prefix(prefix)?;
        rest.strip_suffix(')')
    };
    if let Some(arguments) = inside("~SEQ(") {
        return counted(arguments, false);
    }
    if let Some(arguments) = inside("~SEQx(") {
        return counted(arguments, true);
    }
    match inside("~LST(") {
        Some(arguments) => listed(arguments).ok_or_else(|| LIST.to_owned()),
        None if specification.starts_with("~L") => Err(LIST.to_owned()),
        None => Err(SEQUENCE.to_owned()),
    }
}

fn counted(arguments: &str, hexadecimal: bool) -> Result<Vec<Step>, String> {
    let usage = || SEQUENCE.to_owned();
    let (name, numbers) = arguments.split_once(',').ok_or_else(usage)?;
    let name = name.trim();
    let numbers: Option<Vec<_>> = numbers.split(',').map(number).collect();
    let (start, step, end) = match *numbers.ok_or_else(usage)?.as_slice() {
        [end] => (if end < 0 { -1 } else { 1 }, None, end),
        [start, end] => (start, None, end),
        [start, step, end] => (start, Some(step), end),
        _ => return Err(usage()),
    };
    let step = step.unwrap_or(if end < start { -1 } else { 1 });
    if name.is_empty() || step == 0 {
        return Err(format!("{SEQUENCE} with a step other than 0"));
    }
    let mut steps = Vec::new();
    let mut value = start;
    while (step > 0 && value <= end) || (step < 0 && value >= end) {
        if steps.len() == MOST_STEPS {
            return Err(format!("at most {MOST_STEPS} steps"));
        }
        let text = if hexadecimal {
            format!("{value:x}")
        } else {
            value.to_string()
        };
        steps.push(vec![(name.to_owned(), text)]);
        value = value.saturating_add(step);
        if value == i64::MAX || value == i64::MIN {
            break;
        }
    }
    Ok(steps)
}

fn number(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let value = match digits.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    let value = value.ok().filter(|value| *value >= 0)?;
    Some(if negative { -value } else { value })
}

fn listed(arguments: &str) -> Option<Vec<Step>> {
    let mut groups = groups(arguments)?.into_iter();
    let names = groups.next()?;
    let steps: Option<Vec<Step>> = groups
        .map(|values| {
            let pairs = names.iter().cloned().zip(values.iter().cloned());
            (values.len() == names.len()).then(|| pairs.collect())
        })
        .collect();
    steps.filter(|steps| !steps.is_empty())
}

/// `a, {b, c}` as `[[a], [b, c]]`.
fn groups(arguments: &str) -> Option<Vec<Vec<String>>> {
    let mut groups = Vec::new();
    let mut rest = arguments.trim();
    loop {
        let (group, after) = if let Some(inside) = rest.strip_prefix('{') {
            let (inside, after) = inside.split_once('}')?;
            let items = inside.split(',').map(|item| item.trim().to_owned());
            (items.collect(), after.trim_start())
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (vec![rest[..end].trim().to_owned()], &rest[end..])
        };
        groups.push(group);
        if after.is_empty() {
            return Some(groups);
        }
        rest = after.strip_prefix(',')?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(specification: &str) -> Result<Vec<String>, String> {
        let show = |step: &Step| {
            let values: Vec<_> = step.iter().map(|(n, v)| format!("{n}={v}")).collect();
            values.join(" ")
        };
        Ok(steps(specification)?.iter().map(show).collect())
    }

    #[test]
    fn the_examples_of_the_manual() {
        let cases = [
            ("~SEQ(I, 0, 3)", "I=0,I=1,I=2,I=3"),
            ("~SEQ(I,3)", "I=1,I=2,I=3"),
            ("~SEQ(I,-2)", "I=-1,I=-2"),
            ("~SEQ(J,5,-2,1)", "J=5,J=3,J=1"),
            ("~SEQ(I4,4,2)", "I4=4,I4=3,I4=2"),
            ("~SEQx(S, 144, 16, 192)", "S=90,S=a0,S=b0,S=c0"),
            ("~SEQx(S, 0x90, 0x10, 0xb0)", "S=90,S=a0,S=b0"),
            ("~LST(IP, 1, 2)", "IP=1,IP=2"),
            (
                "~LST({IP,   IP1}, {10,1},{20,4})",
                "IP=10 IP1=1,IP=20 IP1=4",
            ),
        ];
        for (specification, expected) in cases {
            let found = values(specification).map(|values| values.join(","));
            assert_eq!(found.as_deref(), Ok(expected), "{specification}");
        }
    }

    #[test]
    fn what_is_no_sequence() {
        for specification in [
            "~SEQ(I,1,0,3)",
            "~SEQ(I)",
            "~SEQ(I,a)",
            "~SEQ(I,1,2",
            "~SEQ(I,1,999999999)",
            "~FOO(I)",
            "~LST(I)",
            "~LST({A,B},{1})",
            "~LST({A,B",
        ] {
            assert!(values(specification).is_err(), "{specification}");
        }
    }
}
