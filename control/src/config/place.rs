//! Where in a configuration something stands, as messages name it.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

/// `virtual_server 192.168.1.100:80: lb_algo`: sections and a key, outermost first; nothing at the top of a file.
///
/// A large file has a hundred thousand of them and messages about none, so they become text only when displayed.
#[derive(Clone, Debug, Default)]
pub(super) struct Place<'d>(Option<Rc<Inside<'d>>>);

#[derive(Debug)]
struct Inside<'d> {
    outer: Place<'d>,
    name: Name<'d>,
}

#[derive(Debug)]
enum Name<'d> {
    /// `lb_algo`
    Key(&'static str),
    /// `virtual_server 192.168.1.100:80`
    Named(&'static str, Cow<'d, str>),
    /// `virtual_server #3`, counted from 1.
    Numbered(&'static str, usize),
}

impl<'d> Place<'d> {
    /// A key of this section.
    pub(super) fn key(&self, key: &'static str) -> Self {
        self.inside(Name::Key(key))
    }

    /// A section in this one that has a name.
    pub(super) fn named(&self, section: &'static str, name: impl Into<Cow<'d, str>>) -> Self {
        self.inside(Name::Named(section, name.into()))
    }

    /// A section in this one that has none; `index` counts from 0.
    pub(super) fn numbered(&self, section: &'static str, index: usize) -> Self {
        self.inside(Name::Numbered(section, index + 1))
    }

    fn inside(&self, name: Name<'d>) -> Self {
        let outer = self.clone();
        Self(Some(Rc::new(Inside { outer, name })))
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(inside) = &self.0 else {
            return Ok(());
        };
        if inside.outer.0.is_some() {
            write!(f, "{}: ", inside.outer)?;
        }
        match &inside.name {
            Name::Key(key) => f.write_str(key),
            Name::Named(section, name) => write!(f, "{section} {}", name.escape_debug()),
            Name::Numbered(section, number) => write!(f, "{section} #{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn outermost_first() {
        let top = Place::default();
        let service = top.named("virtual_server", "10.0.0.1:80");
        let server = service.numbered("real_server", 2);
        assert_eq!(top.to_string(), "");
        assert_eq!(top.key("router_id").to_string(), "router_id");
        assert_eq!(
            server.key("weight").to_string(),
            "virtual_server 10.0.0.1:80: real_server #3: weight"
        );
        assert_eq!(top.named("a", "\u{7}").to_string(), "a \\u{7}");
    }
}
