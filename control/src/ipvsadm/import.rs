//! What `ipvsadm -S` wrote, as a configuration: each line is carried out on a
//! controller without network, so that it means what it means to `-R`.

use std::path::Path;
use std::time::Instant;

use super::edits::{EditFailure, edit};
use super::names::Names;
use super::parse::parse_line;
use crate::config::{self, Checked, Diagnostic, Diagnostics, Position, Severity};
use crate::controller::Controller;

/// True if a text looks like what `ipvsadm -S` writes, and not like a
/// keepalived.conf: its first line begins with an option.
#[must_use]
pub(crate) fn is_saved(text: &str) -> bool {
    let first = lines(text).next();
    first.is_some_and(|(_, line)| line.starts_with('-') || line.starts_with("ipvsadm "))
}

/// The configuration that these command lines make. Those that the appliance
/// cannot carry out are among the warnings, as [`Severity::Unmapped`]; `path`
/// only names the text.
///
/// # Errors
/// Every line that is no command line, or changes nothing.
pub(crate) fn import(text: &str, path: &Path, names: &dyn Names) -> Result<Checked, Diagnostics> {
    let diagnostic = |severity, line, message| Diagnostic {
        severity,
        file: path.to_owned(),
        position: Some(Position { line, column: 1 }),
        place: String::new(),
        message,
    };
    let left_out = |line, why: &str| {
        let why = why.strip_prefix("ipvsadm: ").unwrap_or(why);
        diagnostic(
            Severity::Unmapped,
            line,
            format!("the line is left out: {why}"),
        )
    };
    let (mut edits, mut numbers) = (Vec::new(), Vec::new());
    let (mut mistakes, mut warnings) = (Vec::new(), Vec::new());
    for (number, line) in lines(text) {
        let command = match parse_line(line, names) {
            Ok(Some(command)) => command,
            Ok(None) => continue,
            Err(wrong) => {
                let message = format!("found {line:?}, which ipvsadm does not take: {wrong}");
                mistakes.push(diagnostic(Severity::Error, number, message));
                continue;
            }
        };
        match edit(&command) {
            Some(Ok(edit)) => {
                edits.push(edit);
                numbers.push(number);
            }
            Some(Err(failure)) => warnings.push(left_out(number, &failure.message)),
            None => {
                let message =
                    format!("found {line:?}, expected a change, such as -A or -a: remove it");
                mistakes.push(diagnostic(Severity::Error, number, message));
            }
        }
    }
    if !mistakes.is_empty() {
        return Err(Diagnostics::new(mistakes));
    }
    let mut controller = Controller::new(config::parse("", path)?.config, Vec::new());
    let (results, _) = controller.edit(&edits, Instant::now());
    for ((edit, number), result) in edits.iter().zip(numbers).zip(results) {
        if let Some(error) = result {
            warnings.push(left_out(number, &EditFailure::of(edit, &error).message));
        }
    }
    warnings.sort_by_key(|warning| warning.position);
    Ok(Checked {
        config: controller.config().clone(),
        warnings: Diagnostics::new(warnings),
        text: None,
    })
}

/// Those that say something, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::super::names::Few;
    use super::*;

    const SAVED: &str = "\
        # of a director\n\
        -A -t 192.168.1.110:http -s sh -p 50 -M 255.255.255.0 -b sh-port\n\
        -a -t 192.168.1.110:http -r 192.168.1.11:http -g -w 1\n\
        -a -t 192.168.1.110:http -r 192.168.1.12:8080 -m -w 3\n\
        -A -f 7 -s rr\n\
        -a -f 7 -r 192.168.1.11:0 -g -w 1\n\
        -a -t 192.168.1.110:http -r 192.168.1.11:http -g -w 1\n\
        \n\
        ipvsadm -A -u 192.168.1.110:domain -s rr -o\n\
        -A --sctp-service 192.168.1.110:36412 -s rr\n";

    fn imported(text: &str) -> Result<Checked, String> {
        let imported = import(text, Path::new("rules"), &Few);
        imported.map_err(|diagnostics| diagnostics.to_string())
    }

    #[test]
    fn what_was_saved_is_imported() {
        let checked = imported(SAVED).unwrap();
        let toml = config::to_toml(&checked.config);
        let expected = r#"
            [[virtual_server]]
            address = "192.168.1.110:80"
            lb_algo = "sh"
            sh-port = true
            lb_kind = "DR"
            persistence_timeout = 50
            persistence_granularity = 24
            [[virtual_server.real_server]]
            address = "192.168.1.11:80"
            [[virtual_server.real_server]]
            address = "192.168.1.12:8080"
            lb_kind = "NAT"
            weight = 3
            [[virtual_server]]
            address = "192.168.1.110:53"
            protocol = "UDP"
            lb_algo = "rr"
            lb_kind = "DR"
            ops = true
            [[virtual_server]]
            address = "192.168.1.110:36412"
            protocol = "SCTP"
            lb_algo = "rr"
            lb_kind = "DR"
        "#;
        let expected = config::parse(expected, Path::new("expected")).unwrap();
        assert_eq!(checked.config, expected.config);
        let again = config::parse(&toml, Path::new("again")).unwrap();
        assert_eq!(again.config, checked.config);
        assert!(checked.warnings.has_unmapped());
        assert_eq!(
            checked.warnings.to_string(),
            "rules:5:1: warning: the line is left out: the appliance has no virtual servers \
             by firewall mark: add one for each address and port\n\
             rules:6:1: warning: the line is left out: Service not defined\n\
             rules:7:1: warning: the line is left out: Destination already exists"
        );
    }

    #[test]
    fn mistakes_are_all_reported() {
        let mistakes = imported("-A -t 1.2.3.4:80\n-A -t 1.2.3.4\n-L\n-R\n").unwrap_err();
        let lines: Vec<&str> = mistakes.lines().collect();
        assert_eq!(lines.len(), 3, "{mistakes}");
        assert_eq!(
            lines[..2],
            [
                "rules:2:1: found \"-A -t 1.2.3.4\", which ipvsadm does not take: \
                 Zero port specified for non-persistent service",
                "rules:3:1: found \"-L\", expected a change, such as -A or -a: remove it",
            ]
        );
    }

    #[test]
    fn the_first_line_tells() {
        for text in [SAVED, "-A -t 1.2.3.4:80", "\nipvsadm -C\n"] {
            assert!(is_saved(text), "{text}");
        }
        for text in [
            "",
            "! x",
            "global_defs {\n}\n",
            "# x\nvirtual_server 1.1.1.1 80 {",
        ] {
            assert!(!is_saved(text), "{text}");
        }
    }
}
