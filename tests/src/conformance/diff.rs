//! What differs between two texts, line by line.

use std::fmt::Write as _;

/// Equal lines shown around a difference.
const CONTEXT: usize = 2;
/// Most lines shown.
const SHOWN: usize = 60;

/// The lines that differ, with `-` for those only in `old` and `+` for those only in `new`.
pub(super) fn lines(old: &str, new: &str) -> String {
    let edits = edits(
        &old.lines().collect::<Vec<_>>(),
        &new.lines().collect::<Vec<_>>(),
    );
    let near = |at: usize| {
        let start = at.saturating_sub(CONTEXT);
        let end = (at + CONTEXT + 1).min(edits.len());
        edits[start..end].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut text = String::new();
    let mut shown = 0..SHOWN;
    let mut last = None;
    for (at, (mark, line)) in edits.iter().enumerate().filter(|(at, _)| near(*at)) {
        if shown.next().is_none() {
            text.push_str("  … and more\n");
            break;
        }
        if last.is_some_and(|last| last + 1 != at) {
            text.push_str("  …\n");
        }
        let _ = writeln!(text, "  {mark} {line}");
        last = Some(at);
    }
    text
}

/// Every line with its mark, from the longest common subsequence.
fn edits<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    // longest[i][j]: length of the longest common subsequence of old[i..] and new[j..].
    let mut longest = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i][j] = if old[i] == new[j] {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let mut edits = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            edits.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            edits.push(('-', old[i]));
            i += 1;
        } else {
            edits.push(('+', new[j]));
            j += 1;
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_what_differs_with_context() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\nten\n";
        assert_eq!(
            lines(old, new),
            "    3\n    4\n  - 5\n  + five\n    6\n    7\n    8\n    9\n  + ten\n"
        );
        assert_eq!(lines(old, old), "");
    }
}
