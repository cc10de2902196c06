//! How a test says that it cannot run where it is.
//!
//! The test harness keeps what a passing test prints by a macro; this is written past it.

use std::fmt::Display;
use std::io::Write as _;
use std::thread;

/// Says on stderr that the calling test is skipped, and why.
///
/// # Panics
/// With `CI=true`, where everything that a test needs has been installed: nothing passes unseen.
pub fn skipped(why: impl Display) {
    say(&why);
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "skipped with CI=true: {why}"
    );
}

/// The same of a part that depends on what the system's packages contain, and is missing in CI, too, on some.
pub fn partly(why: impl Display) {
    say(&why);
}

fn say(why: &impl Display) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    // A closed stderr is no reason to fail.
    let _ = std::io::stderr().write_all(format!("{test}: skipped: {why}\n").as_bytes());
}
