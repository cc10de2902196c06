//! Which routes and rules the director has because of instances that are master.
//!
//! Routes may need the addresses, as their source: they come after them and go before them.

use std::collections::BTreeSet;

use crate::config::{Config, VrrpInstance};
use crate::event::Action;
use crate::routing::{VirtualRoute, VirtualRule};

/// What is there now.
#[derive(Debug, Default)]
pub(super) struct Routing {
    routes: Vec<VirtualRoute>,
    rules: Vec<VirtualRule>,
}

/// What is to be added, once the addresses are there.
#[derive(Debug)]
pub(super) struct Missing(Vec<Action>);

impl Missing {
    pub(super) fn add(self, actions: &mut Vec<Action>) {
        actions.extend(self.0);
    }
}

impl Routing {
    /// Gives up what the masters do not want any more.
    #[must_use]
    pub(super) fn want(
        &mut self,
        config: &Config,
        masters: &BTreeSet<String>,
        actions: &mut Vec<Action>,
    ) -> Missing {
        let instances = config.vrrp_instances.iter();
        let masters = instances.filter(|instance| masters.contains(&instance.name));
        let (mut routes, mut rules) = (Vec::new(), Vec::new());
        for VrrpInstance {
            virtual_routes,
            virtual_rules,
            ..
        } in masters
        {
            for route in virtual_routes {
                // To the kernel it is the same one: it stays when a reload changes who watches it.
                let mut route = route.clone();
                route.no_track = false;
                if !routes.contains(&route) {
                    routes.push(route);
                }
            }
            for rule in virtual_rules {
                let mut rule = rule.clone();
                rule.no_track = false;
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        let gone = self.rules.iter().rev().filter(|r| !rules.contains(r));
        actions.extend(gone.cloned().map(Action::RemoveRule));
        let gone = self.routes.iter().rev().filter(|r| !routes.contains(r));
        actions.extend(gone.cloned().map(Action::RemoveRoute));
        let new = routes.iter().filter(|route| !self.routes.contains(route));
        let mut missing: Vec<_> = new.cloned().map(Action::AddRoute).collect();
        let new = rules.iter().filter(|rule| !self.rules.contains(rule));
        missing.extend(new.cloned().map(Action::AddRule));
        (self.routes, self.rules) = (routes, rules);
        Missing(missing)
    }

    /// The kernel forgets a route when its interface goes down or its source address is removed: those are
    /// added again.
    pub(super) fn restore(&self, is_lost: impl Fn(&VirtualRoute) -> bool) -> Vec<Action> {
        let lost = self.routes.iter().filter(|route| is_lost(route));
        lost.cloned().map(Action::AddRoute).collect()
    }

    /// Removes all of them.
    pub(super) fn release(&mut self, actions: &mut Vec<Action>) {
        let rules = std::mem::take(&mut self.rules).into_iter().rev();
        actions.extend(rules.map(Action::RemoveRule));
        let routes = std::mem::take(&mut self.routes).into_iter().rev();
        actions.extend(routes.map(Action::RemoveRoute));
    }
}
