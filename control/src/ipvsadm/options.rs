//! The words of the command line, and how they are told apart.
//!
//! ipvsadm reads its arguments with popt, whose habits scripts rely on: short
//! options in one word (`-Ln`, `-at 10.0.0.1:80`), values in the same word
//! (`-srr`, `-s=rr`, `--scheduler=rr`) or in the next, no abbreviations of long
//! ones, and arguments that are no option anywhere between them.

use std::collections::VecDeque;

/// Whether an option has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    None,
    Required,
    /// The next word, unless that begins with `-`.
    Optional,
}

macro_rules! words {
    ($($word:ident $short:literal $long:literal $value:ident;)*) => {
        /// A command or an option.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Word { $($word,)* }

        /// Each with its short form, if any, and its long one.
        const WORDS: &[(Word, Option<char>, &str, Value)] =
            &[$((Word::$word, short($short), $long, Value::$value),)*];
    };
}

/// A blank stands for "no short form".
const fn short(short: char) -> Option<char> {
    if short == ' ' { None } else { Some(short) }
}

words! {
    AddService 'A' "add-service" None;
    EditService 'E' "edit-service" None;
    DeleteService 'D' "delete-service" None;
    Clear 'C' "clear" None;
    Restore 'R' "restore" None;
    Save 'S' "save" None;
    AddServer 'a' "add-server" None;
    EditServer 'e' "edit-server" None;
    DeleteServer 'd' "delete-server" None;
    List 'L' "list" None;
    ListLower 'l' "list" None;
    Zero 'Z' "zero" None;
    Set ' ' "set" None;
    StartDaemon ' ' "start-daemon" Required;
    StopDaemon ' ' "stop-daemon" Required;
    Help 'h' "help" None;
    Version 'v' "version" None;
    TcpService 't' "tcp-service" Required;
    UdpService 'u' "udp-service" Required;
    SctpService ' ' "sctp-service" Required;
    FwmarkService 'f' "fwmark-service" Required;
    Ipv6 '6' "ipv6" None;
    Scheduler 's' "scheduler" Required;
    Persistent 'p' "persistent" Optional;
    Netmask 'M' "netmask" Required;
    Engine ' ' "pe" Required;
    RealServer 'r' "real-server" Required;
    Gatewaying 'g' "gatewaying" None;
    Ipip 'i' "ipip" None;
    Masquerading 'm' "masquerading" None;
    TunType ' ' "tun-type" Required;
    TunPort ' ' "tun-port" Required;
    TunNocsum ' ' "tun-nocsum" None;
    TunCsum ' ' "tun-csum" None;
    TunRemcsum ' ' "tun-remcsum" None;
    Weight 'w' "weight" Required;
    UThreshold 'x' "u-threshold" Required;
    LThreshold 'y' "l-threshold" Required;
    Connection 'c' "connection" None;
    Timeout ' ' "timeout" None;
    Daemon ' ' "daemon" None;
    Stats ' ' "stats" None;
    Rate ' ' "rate" None;
    Exact 'X' "exact" None;
    Thresholds ' ' "thresholds" None;
    PersistentConn ' ' "persistent-conn" None;
    TunInfo ' ' "tun-info" None;
    Nosort ' ' "nosort" None;
    Sort ' ' "sort" None;
    Ops 'o' "ops" None;
    Numeric 'n' "numeric" None;
    SchedFlags 'b' "sched-flags" Required;
    Syncid ' ' "syncid" Required;
    SyncMaxlen ' ' "sync-maxlen" Required;
    McastInterface ' ' "mcast-interface" Required;
    McastGroup ' ' "mcast-group" Required;
    McastPort ' ' "mcast-port" Required;
    McastTtl ' ' "mcast-ttl" Required;
}

/// An option that cannot be read: popt's words for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) &'static str);

const UNKNOWN: Unreadable = Unreadable("unknown option");
const MISSING: Unreadable = Unreadable("missing argument");
const UNWANTED: Unreadable = Unreadable("option does not take an argument");

/// Takes one option after the other from the arguments.
#[derive(Debug)]
pub(super) struct Options {
    arguments: VecDeque<String>,
    /// What is left of a word of short options.
    cluster: VecDeque<char>,
    /// The argument that the last option was in, for messages.
    pub(super) current: String,
    /// Arguments that are no options, so far.
    pub(super) others: VecDeque<String>,
}

impl Options {
    pub(super) fn new(arguments: &[String]) -> Self {
        Self {
            arguments: arguments.iter().cloned().collect(),
            cluster: VecDeque::new(),
            current: String::new(),
            others: VecDeque::new(),
        }
    }

    /// The next option with its value; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Result<(Word, Option<String>), Unreadable>> {
        if let Some(letter) = self.cluster.pop_front() {
            return Some(self.short(letter));
        }
        loop {
            let argument = self.arguments.pop_front()?;
            if argument == "--" {
                self.others.append(&mut self.arguments);
                return None;
            }
            if let Some(long) = argument.strip_prefix("--") {
                let long = long.to_owned();
                self.current = argument;
                return Some(self.long(&long));
            }
            let mut letters = argument.chars();
            if letters.next() == Some('-')
                && let Some(letter) = letters.next()
            {
                self.cluster = letters.collect();
                self.current = argument;
                return Some(self.short(letter));
            }
            self.others.push_back(argument);
        }
    }

    fn long(&mut self, text: &str) -> Result<(Word, Option<String>), Unreadable> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let found = WORDS.iter().find(|(_, _, long, _)| *long == name);
        let (word, _, _, takes) = found.ok_or(UNKNOWN)?;
        self.with_value(*word, *takes, value)
    }

    fn short(&mut self, letter: char) -> Result<(Word, Option<String>), Unreadable> {
        let found = WORDS.iter().find(|(_, short, ..)| *short == Some(letter));
        let (word, _, _, takes) = found.ok_or(UNKNOWN)?;
        let assigned = self.cluster.front() == Some(&'=');
        let value = if assigned || (*takes != Value::None && !self.cluster.is_empty()) {
            let rest = std::mem::take(&mut self.cluster);
            Some(rest.into_iter().skip(usize::from(assigned)).collect())
        } else {
            None
        };
        self.with_value(*word, *takes, value)
    }

    fn with_value(
        &mut self,
        word: Word,
        takes: Value,
        value: Option<String>,
    ) -> Result<(Word, Option<String>), Unreadable> {
        let value = match (takes, value) {
            (Value::None, Some(_)) => return Err(UNWANTED),
            (Value::None, None) => None,
            (Value::Required, None) => Some(self.arguments.pop_front().ok_or(MISSING)?),
            (Value::Optional, None) => {
                let next = self.arguments.front();
                match next.is_some_and(|next| !next.starts_with('-')) {
                    true => self.arguments.pop_front(),
                    false => None,
                }
            }
            (Value::Required | Value::Optional, Some(value)) => Some(value),
        };
        Ok((word, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> (Vec<(Word, Option<String>)>, Vec<String>) {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let mut options = Options::new(&arguments);
        let mut words = Vec::new();
        while let Some(option) = options.next() {
            words.push(option.unwrap());
        }
        (words, options.others.into())
    }

    fn failure(line: &str) -> (Unreadable, String) {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let mut options = Options::new(&arguments);
        loop {
            if let Err(unreadable) = options.next().unwrap() {
                return (unreadable, options.current);
            }
        }
    }

    #[test]
    fn values_are_in_the_same_word_or_the_next() {
        let scheduler = |text: &str| (Word::Scheduler, Some(text.to_owned()));
        for line in ["-s rr", "-srr", "-s=rr", "--scheduler rr", "--scheduler=rr"] {
            assert_eq!(read(line).0, [scheduler("rr")], "{line}");
        }
        let (words, _) = read("-Lnt 1.1.1.1:80");
        let service = (Word::TcpService, Some("1.1.1.1:80".to_owned()));
        assert_eq!(words, [(Word::List, None), (Word::Numeric, None), service]);
    }

    #[test]
    fn the_value_of_p_is_no_option() {
        let with = |text: &str| (Word::Persistent, Some(text.to_owned()));
        assert_eq!(read("-p 5").0, [with("5")]);
        assert_eq!(read("-p5").0, [with("5")]);
        let without = (Word::Persistent, None);
        let numeric = (Word::Numeric, None);
        assert_eq!(read("-np").0, [numeric.clone(), without.clone()]);
        assert_eq!(read("-p -n").0, [without, numeric]);
    }

    #[test]
    fn other_arguments_are_kept() {
        let (words, others) = read("a -n - -- -c");
        assert_eq!(words, [(Word::Numeric, None)]);
        assert_eq!(others, ["a", "-", "-c"]);
    }

    #[test]
    fn unreadable_options_name_their_argument() {
        for (line, why, current) in [
            ("-nq", UNKNOWN, "-nq"),
            ("--lis", UNKNOWN, "--lis"),
            ("--nosuch=5", UNKNOWN, "--nosuch=5"),
            ("-Lx", MISSING, "-Lx"),
            ("--weight", MISSING, "--weight"),
            ("--stats=5", UNWANTED, "--stats=5"),
            ("-n=5", UNWANTED, "-n=5"),
        ] {
            assert_eq!(failure(line), (why, current.to_owned()), "{line}");
        }
    }
}
