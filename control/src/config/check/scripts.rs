//! Commands that are run, and who runs them.

use super::super::raw::{Table, Value};
use super::super::report::Report;
use crate::scripts::{Policy, Script, ScriptUser, words};

/// `script_user` and `enable_script_security` of `[global_defs]`.
pub(super) fn policy(table: &Table<'_>, report: &mut Report<'_>) -> Policy {
    let user = table.get("script_user");
    let security = table.get("enable_script_security");
    Policy {
        user: user.and_then(|value| script_user(&value, report)),
        security: security
            .and_then(|value| value.boolean(report))
            .unwrap_or(false),
    }
}

/// `"USER [GROUP]"`.
pub(super) fn script_user(value: &Value<'_>, report: &mut Report<'_>) -> Option<ScriptUser> {
    let mut names = value.text(report)?.split_whitespace().map(str::to_owned);
    let (user, group, more) = (names.next(), names.next(), names.next());
    if user.is_none() || more.is_some() {
        value.reject(
            "a user and perhaps a group",
            r#"write "USER" or "USER GROUP""#,
            report,
        );
    }
    user.map(|user| ScriptUser { user, group })
}

/// A command: a line in keepalived's quoting, a list of words, or a table of
/// `script` (either of the two) and `user`.
pub(super) fn script(value: &Value<'_>, report: &mut Report<'_>) -> Option<Script> {
    if let Some(entry) = value.entry() {
        let table = Table::new(entry, value.place.clone(), &super::SCRIPT, report);
        let user = table.get("user");
        let user = user.and_then(|value| script_user(&value, report));
        let words = table.require("script", r#"script = "/path/of/program""#, report);
        let words = command(&words?, report)?;
        return Some(Script { words, user });
    }
    let words = command(value, report)?;
    Some(Script { words, user: None })
}

/// The words of a command.
pub(super) fn command(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<String>> {
    if value.raw.is_array() {
        let mut words = Vec::new();
        for word in value.list(report)? {
            words.push(word.command_text(report)?.to_owned());
        }
        return Some(words);
    }
    match words::split(value.command_text(report)?) {
        Ok(words) => Some(words),
        Err(error) => {
            value.reject(
                format_args!("a command line, there is {error}"),
                r#"write it as for a shell, or as a list: ["/path/of/program", "argument"]"#,
                report,
            );
            None
        }
    }
}
