use std::path::Path;

use super::*;
use crate::config::VirtualServer;

const TCP: &str = "TCP_CHECK = {}";
const GET: &str = "HTTP_GET = { url = { path = '/health' } }";
const LOAD: &str = "MISC_CHECK = { misc_path = '/bin/load', misc_dynamic = true }";

/// The real server with these lines, in a virtual server with one.
fn service(of_service: &str, of_server: &[&str]) -> VirtualServer {
    let of_server = of_server.join("\n");
    let file = format!(
        "[[virtual_server]]\naddress = '10.0.0.100:80'\nlb_kind = 'DR'\n{of_service}\n\
         [[virtual_server.real_server]]\naddress = '10.0.0.1:80'\n{of_server}\n"
    );
    let checked = crate::config::parse(&file, Path::new("file"));
    checked.unwrap().config.virtual_servers.remove(0)
}

fn reload(
    known: Vec<CheckState>,
    was_up: bool,
    of_service: &str,
    of_server: &[&str],
) -> (Vec<CheckState>, Vec<String>) {
    let service = service(of_service, of_server);
    let server = &service.real_servers[0];
    let mut actions = Vec::new();
    let key = (service.key, server.address);
    let states = take_up(key, server, known, was_up, &mut actions);
    let in_words = actions.iter().map(|action| {
        if let Action::StartCheck { id, check } = action {
            format!("start {} {}", id.check, check.kind.name())
        } else if let Action::StopCheck { id } = action {
            format!("stop {}", id.check)
        } else {
            panic!("{action:?}")
        }
    });
    (states, in_words.collect())
}

/// Those of a new server, with results.
fn known(of_server: &[&str], results: &[Option<bool>]) -> Vec<CheckState> {
    let (mut states, _) = reload(Vec::new(), false, "", of_server);
    assert_eq!(states.len(), results.len());
    for (state, result) in states.iter_mut().zip(results) {
        state.healthy = *result;
    }
    states
}

fn results(states: &[CheckState]) -> Vec<(usize, Option<bool>)> {
    let results = states.iter().map(|state| (state.number, state.healthy));
    results.collect()
}

#[test]
fn checks_are_numbered_as_they_come() {
    let (states, actions) = reload(Vec::new(), false, "", &[TCP, GET]);
    assert_eq!(actions, ["start 0 TCP_CHECK", "start 1 HTTP_GET"]);
    assert_eq!(results(&states), [(0, None), (1, None)]);
}

#[test]
fn a_check_goes_on_when_another_is_removed_or_added() {
    let before = known(&[TCP, GET], &[Some(true), Some(false)]);
    let (states, actions) = reload(before, false, "", &[GET]);
    assert_eq!(actions, ["stop 0"]);
    assert_eq!(results(&states), [(1, Some(false))]);
    // It is a new one, and nothing is known by it.
    let (states, actions) = reload(states, false, "", &[TCP, GET]);
    assert_eq!(actions, ["start 2 TCP_CHECK"]);
    assert_eq!(results(&states), [(2, None), (1, Some(false))]);
}

#[test]
fn a_check_that_takes_the_place_of_another_knows_nothing() {
    let before = known(&[TCP], &[Some(false)]);
    let (states, actions) = reload(before, false, "", &[GET]);
    assert_eq!(actions, ["stop 0", "start 1 HTTP_GET"]);
    assert_eq!(results(&states), [(1, None)]);
    let other_script = LOAD.replace("load", "another");
    let before = known(&[LOAD], &[Some(false)]);
    let (states, _) = reload(before, false, "", &[&other_script]);
    assert_eq!(results(&states), [(1, None)]);
}

#[test]
fn a_changed_check_begins_with_what_is_known() {
    let mut before = known(&[TCP, GET, LOAD], &[Some(true), Some(false), Some(true)]);
    before[1].reason = Some("status 503".to_owned());
    before[2].weight = Some(WeightChange::Set(0));
    let (states, actions) = reload(before, false, "delay_loop = 9", &[LOAD, GET, TCP]);
    // Started without a stop: the checker goes by what it has.
    assert_eq!(
        actions,
        [
            "start 0 TCP_CHECK",
            "start 1 HTTP_GET",
            "start 2 MISC_CHECK"
        ]
    );
    let expected = [(0, Some(true)), (1, Some(false)), (2, Some(true))];
    assert_eq!(results(&states), expected);
    assert_eq!(states[1].reason.as_deref(), Some("status 503"));
    assert_eq!(states[2].weight, Some(WeightChange::Set(0)));

    let other_url = GET.replace("health", "status");
    let (states, _) = reload(states, false, "", &[TCP, &other_url, LOAD]);
    assert_eq!(results(&states), expected);
}

#[test]
fn of_two_checks_alike_the_one_that_stays_is_found() {
    let first = "HTTP_GET = [{ url = { path = '/a' } }, { url = { path = '/b' } }]";
    let second = "HTTP_GET = { url = { path = '/b' } }";
    let before = known(&[first], &[Some(true), Some(false)]);
    let (states, actions) = reload(before, false, "retry = 7", &[second]);
    assert_eq!(actions, ["stop 0", "start 1 HTTP_GET"]);
    assert_eq!(results(&states), [(1, Some(false))]);
}

/// As in keepalived: else a reload would take a whole virtual server out of use.
#[test]
fn a_server_that_was_up_stays_up_with_a_new_check_that_is_alpha() {
    for (was_up, expected) in [(true, Some(true)), (false, None)] {
        let before = known(&[TCP], &[Some(was_up)]);
        let (states, _) = reload(before, was_up, "alpha = true", &[GET]);
        assert_eq!(results(&states), [(1, expected)]);
        let untried = known(&[TCP], &[None]);
        let (states, _) = reload(untried, was_up, "alpha = true", &[TCP]);
        assert_eq!(results(&states), [(0, expected)]);
    }
}
