//! Whole files: what is read, and the table of keywords.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::super::raw::Spec;
use super::keywords::{Block, Keyword, Kind, Otherwise, blocks};
use super::*;

/// The lines that a text becomes, and the number of mistakes.
fn lines_of(text: &str) -> (Vec<String>, usize) {
    let files = Files::None;
    let mut reader = Reader::new(Path::new("test.conf"), text.into(), &files, "main");
    let lines = std::iter::from_fn(|| reader.next_line().map(|line| line.text));
    let lines = lines.collect();
    (lines, reader.mistakes.len())
}

/// What keepalived 2.2.7 makes of the same lines (`keepalived -t` names the
/// words that it does not know).
#[test]
fn lines_are_keepaliveds() {
    let cases: [(&str, &[&str]); 19] = [
        ("a b\r\n\tc\n\nd", &["a b", "c", "d"]),
        ("bo#gus\nbo!gus\n\"bo#gus\"", &["bo", "bo", "\"bo#gus\""]),
        (
            "@main a\n@other b\n@^main c\n@^other d\n@ e\n@main",
            &["a", "d"],
        ),
        ("@main @other a", &["@other a"]),
        ("$A=x\n$A 1\n${A}y\n$Ay\n$B", &["x 1", "xy", "$Ay", "$B"]),
        ("$A=x y # c\nb$A", &["bx y"]),
        ("$A=${B}.1\n$B=0\n${A}\n$B=10\n${A}", &["0.1", "10.1"]),
        (
            "$A= \\\n one { \\\n two \\\n }\n$A\nz",
            &["one {", "two", "}", "z"],
        ),
        (
            "@main $P=240\n@other $P=200\npriority $P",
            &["priority 240"],
        ),
        ("$IF_MAIN=@main\n$IF_MAIN a\n$N=@other\n$N b", &["a"]),
        (
            "~SEQ(I, 0, 3) ip 10.0.${I}.1",
            &["ip 10.0.0.1", "ip 10.0.1.1", "ip 10.0.2.1", "ip 10.0.3.1"],
        ),
        (
            "$V= \\\nvrrp ${NUM} { \\\n@main a ${NUM} \\\n}\n~SEQ(NUM,1,2) $V",
            &["vrrp 1 {", "a 1", "}", "vrrp 2 {", "a 2", "}"],
        ),
        (
            "~LST(I,1,2) ~LST(J,5,6) ${I}.${J}",
            &["1.5", "1.6", "2.5", "2.6"],
        ),
        (
            "~LST({IP, IP1}, {10,1},{20,4}) ~SEQ(X,168,2,170) 192.${X}.${IP}.${IP1}",
            &[
                "192.168.10.1",
                "192.170.10.1",
                "192.168.20.4",
                "192.170.20.4",
            ],
        ),
        ("$N=2\n~SEQ(I,1,$N ) x$I", &["x1", "x2"]),
        (
            "bog ${_HASH}x\nb${_BANG}\nb${_INSTANCE}",
            &["bog #x", "b!", "bmain"],
        ),
        (
            "x ${UNDEFINED} \"${ALSO}\"",
            &["x ${UNDEFINED} \"${ALSO}\""],
        ),
        ("$A=1\n$A =2", &["1 =2"]),
        (
            "included x\ninclude_check +match",
            &["included x", "include_check +match"],
        ),
    ];
    for (text, expected) in cases {
        let expected = expected.iter().map(ToString::to_string).collect();
        assert_eq!(lines_of(text), (expected, 0), "{text}");
    }
}

/// A line that becomes two to the power of forty lines' length.
fn doubled() -> String {
    let mut text = "$A0=x\n".to_owned();
    for index in 1..40 {
        let before = index - 1;
        text += &format!("$A{index}=${{A{before}}}${{A{before}}}\n");
    }
    text + "$A39"
}

#[test]
fn what_has_no_end_is_cut_off() {
    for text in [
        "$A=${A}x\n$A",
        "$A= \\\n$A \\\n$A\n$A",
        &doubled(),
        "~SEQ(A,1,1000) ~SEQ(B,1,1000) ~SEQ(C,1,1000) a long line for each of a thousand million",
        "~SEQ(I,1,2",
        "include nothing.conf\nincludea nothing.conf",
    ] {
        let (_, mistakes) = lines_of(text);
        assert!(mistakes > 0, "{text}");
    }
}

#[test]
fn files_include_files() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("conf.d")).unwrap();
    fs::create_dir(at("conf.d/deep")).unwrap();
    let main = "one\ninclude conf.d/*.conf\ntwo ${_PWD}\ninclude \"conf.d/{a,b}.txt\"\nlast";
    fs::write(at("conf.d/2.conf"), "second").unwrap();
    fs::write(at("conf.d/1.conf"), "first\ninclude deep/x\nfirst again").unwrap();
    fs::write(at("conf.d/deep/x"), "$X=deep ${_PWD}\n$X").unwrap();
    fs::write(at("conf.d/a.txt"), "a\n").unwrap();
    fs::write(at("conf.d/b.txt"), "b").unwrap();
    let files = Files::Disk;
    let mut reader = Reader::new(&at("main.conf"), main.into(), &files, "");
    let mut lines = Vec::new();
    while let Some(line) = reader.next_line() {
        lines.push(line.text);
    }
    let pwd = |name: &str| at(name).to_string_lossy().into_owned();
    let expected = [
        "one",
        "first",
        &format!("deep {}", pwd("conf.d/deep")),
        "first again",
        "second",
        &format!("two {}", directory.path().display()),
        "a",
        "b",
        "last",
    ];
    assert_eq!(lines, expected);
    assert!(reader.mistakes.is_empty(), "{:?}", reader.mistakes);
    assert_eq!(reader.sources.len(), 6);
}

#[test]
fn includes_that_cannot_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.conf");
    let include = |text: &str| {
        fs::write(&path, text).unwrap();
        let read = parse(text.to_owned(), &path, None, Mode::Use);
        let found = match read {
            Ok(checked) => checked.warnings,
            Err(errors) => errors,
        };
        found
            .to_string()
            .replace(&format!("{}:", path.display()), "")
    };
    assert_eq!(
        include("include b.conf"),
        "1:9: warning: include: found no file \"b.conf\", expected one that can be read: correct the name, or remove the line"
    );
    assert_eq!(
        include("include *.none"),
        include("include b.conf").replace("b.conf", "*.none")
    );
    assert!(include("includem b.conf").starts_with("1:10: include: found no file"));
    assert!(include("includem *.none").starts_with("1:10: warning:"));
    assert!(include("includew *.none").starts_with("1:10: include:"));
    assert!(include("\n include_check\ninclude *.none").contains("3:9: include:"));
    assert!(include("include a.conf").contains("does not include itself"));
}

#[test]
fn keywords_are_named_once() {
    let mut names = BTreeSet::new();
    for block in blocks() {
        assert!(names.insert(block.name), "{} twice", block.name);
        let mut keywords = BTreeSet::new();
        for keyword in block.keywords() {
            assert!(
                keywords.insert(keyword.name),
                "{} of {}",
                keyword.name,
                block.name
            );
        }
    }
}

/// A section of the TOML file that a block is mapped to, and that exists.
fn spec(block: &Block) -> Option<&'static Spec> {
    let mut specs = check::SPECS.iter().copied();
    specs.find(|spec| spec.heading == block.heading)
}

/// So that a key which the TOML file gains, and keepalived has as well, is not
/// forgotten: its keyword may stand in another block already.
#[test]
fn every_key_that_is_a_keyword_is_in_its_block() {
    /// `interface` of the TOML file is no keyword at the top of a keepalived.conf,
    /// and what SMTP_CHECK greets with is none of its `host`.
    const OURS: [&str; 5] = ["interface", "name", "file", "weight", "helo_name"];
    let words: BTreeSet<_> = blocks()
        .into_iter()
        .flat_map(Block::keywords)
        .map(|keyword| keyword.name)
        .collect();
    for block in blocks() {
        for key in spec(block).map(|spec| spec.keys).unwrap_or_default() {
            let here = block.keywords().any(|k| k.name == *key || k.key == *key);
            let forgotten = words.contains(key) && !here && !OURS.contains(key);
            assert!(!forgotten, "{key} of {}", block.name);
        }
    }
}

const DOCUMENTATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/keepalived.md");

/// The documentation has what the table has. `UPDATE_DOCS=1` writes it anew.
#[test]
fn the_documentation_has_every_keyword() {
    let documentation = fs::read_to_string(DOCUMENTATION).unwrap();
    let (before, rest) = documentation.split_once("<!-- keywords -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end of keywords -->").unwrap();
    let tables: String = blocks().into_iter().map(rows).collect();
    let expected = format!("{before}<!-- keywords -->\n{tables}<!-- end of keywords -->{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(DOCUMENTATION, &expected).unwrap();
        return;
    }
    assert!(
        documentation == expected,
        "docs/keepalived.md is not up to date: UPDATE_DOCS=1 cargo test -p control --lib keepalived"
    );
}

/// The documentation of a block.
fn rows(block: &'static Block) -> String {
    let rows = block.keywords().map(|keyword| {
        let name = keyword.name;
        let (here, how) = match (block.maps(keyword), keyword.otherwise) {
            (true, _) => ("yes", as_written(block, keyword)),
            (false, Otherwise::Silent) => ("yes", "done in any case".to_owned()),
            (false, Otherwise::Warn(why)) => ("left out", why.to_owned()),
            (false, Otherwise::Refuse(why)) => ("refused", why.to_owned()),
        };
        format!("| `{name}` | {here} | {how} |\n").replace("|  |", "| |")
    });
    let name = block.name;
    let rows: String = rows.collect();
    format!("\n### {name}\n\n| Keyword | Here | |\n|---|---|---|\n{rows}")
}

/// What a keyword is in TOML, where that has another name or form.
fn as_written(block: &Block, keyword: &Keyword) -> String {
    let (key, heading) = (keyword.key, block.heading);
    match keyword.kind {
        Kind::Timeouts => "`tcp`, `tcpfin` and `udp` of `[appliance.timeouts]`".into(),
        Kind::Group => "one virtual server for each address".into(),
        Kind::Method => format!("`{key}`, `tun_type` and `tun_port` of `{heading}`"),
        Kind::Hosts(_) => "one more SMTP_CHECK".into(),
        Kind::VirtualServer | Kind::RealServer | Kind::Named(_) => {
            format!("`[[{}]]`", key_path(block, key))
        }
        Kind::Nothing
        | Kind::Value(_)
        | Kind::Lines
        | Kind::WordList
        | Kind::Addresses
        | Kind::Routing
        | Kind::Section(_)
        | Kind::Sections(_)
        | Kind::FileChecks(_)
        | Kind::SmtpChecks(_) => {
            if key == keyword.name {
                String::new()
            } else {
                format!("`{key}`")
            }
        }
    }
}

fn key_path(block: &Block, key: &str) -> String {
    match block.heading.strip_prefix("[[") {
        Some(outer) => format!("{}.{key}", outer.trim_end_matches(']')),
        None => key.to_owned(),
    }
}

#[test]
fn kinds_fit_their_blocks() {
    for block in blocks() {
        for keyword in block.keywords() {
            let nothing = matches!(keyword.kind, Kind::Nothing);
            let lost = keyword.otherwise == Otherwise::Silent;
            assert!(nothing || !lost, "{} is read and then lost", keyword.name);
        }
    }
}
