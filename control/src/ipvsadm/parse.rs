//! From arguments to a [`Command`], with the words and exit statuses of
//! ipvsadm 1.31 for what is wrong.
//!
//! As there, the first of several mistakes is told: options in the order in
//! which they stand, then arguments too many, then the scheduler's flags, then
//! which options go together.

use super::command::{Command, SetTimeouts, What};
use super::line::Line;
use super::names::Names;
use super::options::{Options, Word};
use super::validity::{self, Rule};
use super::value;

/// A command line that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct UsageError {
    /// For stderr, without a newline at the end.
    pub message: String,
    /// Exit status.
    pub status: u8,
    /// An option could not be read, after which `-R` goes on.
    pub of_option: bool,
}

impl UsageError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            status: 2,
            of_option: false,
        }
    }

    /// popt's own errors.
    fn of_option(message: String) -> Self {
        Self {
            message,
            status: 255,
            of_option: true,
        }
    }

    /// What ipvsadm says when it makes nothing of a command line at all.
    #[must_use]
    pub(crate) fn try_help() -> Self {
        Self {
            status: 255,
            ..Self::new("Try `ipvsadm -h' or 'ipvsadm --help' for more information.")
        }
    }
}

/// Reads a command line, without the name of the program; no arguments at all
/// list the virtual servers.
///
/// # Errors
/// The first mistake.
pub(crate) fn parse(arguments: &[String], names: &dyn Names) -> Result<Command, UsageError> {
    if arguments.is_empty() {
        return Ok(Command::List(Line::default().list(What::Services)));
    }
    let mut options = Options::new(arguments);
    let first = options.next().and_then(Result::ok);
    let (word, role) = first.ok_or_else(UsageError::try_help)?;
    if word == Word::Help {
        return Ok(Command::Help);
    }
    if word == Word::Version {
        return Ok(Command::Version);
    }
    let rule = rule_of(word).ok_or_else(UsageError::try_help)?;
    check_role(word, role.as_deref())?;
    let mut line = Line::default();
    while let Some(option) = options.next() {
        let (option, text) = option
            .map_err(|why| UsageError::of_option(format!("{}: {}", options.current, why.0)))?;
        line.take(
            option,
            text.as_deref().unwrap_or_default(),
            text.is_some(),
            names,
        )
        .ok_or_else(|| UsageError::new(format!("invalid option `{}'", options.current)))??;
    }
    let timeouts = match word == Word::Set {
        true => Some(timeouts(&mut options)?),
        false => None,
    };
    if let Some(other) = options.others.front() {
        return Err(UsageError::new(format!("unexpected argument {other}")));
    }
    line.read_flags()?;
    rule.check(line.given)?;
    if let Some(timeouts) = timeouts {
        return Ok(Command::SetTimeouts(timeouts));
    }
    line.command(word)
}

/// Reads a line of what `-S` writes and `-R` reads: a command line, with or
/// without the name of the program; `None`: it is empty.
///
/// # Errors
/// The first mistake.
pub(crate) fn parse_line(line: &str, names: &dyn Names) -> Result<Option<Command>, UsageError> {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if words.first().is_some_and(|word| word == "ipvsadm") {
        words.remove(0);
    }
    if words.is_empty() {
        return Ok(None);
    }
    let command = parse(&words, names)?;
    // It would read what it is in.
    if command == Command::Restore {
        return Err(UsageError::try_help());
    }
    Ok(Some(command))
}

/// What goes with a command; `None`: the word is no command.
fn rule_of(word: Word) -> Option<Rule> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other word is an option"
    )]
    Some(match word {
        Word::AddService => validity::ADD_SERVICE,
        Word::EditService => validity::EDIT_SERVICE,
        Word::DeleteService => validity::DELETE_SERVICE,
        Word::Clear => validity::CLEAR,
        Word::Restore => validity::RESTORE,
        Word::Save => validity::SAVE,
        Word::AddServer => validity::ADD_SERVER,
        Word::EditServer => validity::EDIT_SERVER,
        Word::DeleteServer => validity::DELETE_SERVER,
        Word::List | Word::ListLower => validity::LIST,
        Word::Zero => validity::ZERO,
        Word::Set => validity::SET,
        Word::StartDaemon => validity::START_DAEMON,
        Word::StopDaemon => validity::STOP_DAEMON,
        _ => return None,
    })
}

fn check_role(word: Word, role: Option<&str>) -> Result<(), UsageError> {
    let known = matches!(role, Some("master" | "backup"));
    if word == Word::StartDaemon && !known {
        return Err(UsageError::new("illegal start-daemon parameter specified"));
    }
    if word == Word::StopDaemon && !known {
        return Err(UsageError::new("illegal start_daemon specified"));
    }
    Ok(())
}

/// The three values of `--set`.
fn timeouts(options: &mut Options) -> Result<SetTimeouts, UsageError> {
    if options.others.len() < 3 {
        return Err(UsageError::new("--set option requires 3 timeout values"));
    }
    let mut next = || {
        let text = options.others.pop_front().unwrap_or_default();
        timeout(&text, 0)
    };
    Ok(SetTimeouts {
        tcp: next()?,
        tcp_fin: next()?,
        udp: next()?,
    })
}

/// Seconds, from `lowest` to 31 days.
pub(super) fn timeout(text: &str, lowest: u32) -> Result<u32, UsageError> {
    value::number(text, lowest, value::MAX_TIMEOUT)
        .ok_or_else(|| UsageError::new(format!("invalid timeout value `{text}' specified")))
}
