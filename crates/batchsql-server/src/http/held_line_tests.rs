//! Tests of the line without requests: the examples, and random requests, each of which is answered in time.

use proptest::prelude::*;

use super::*;

fn client(name: &str) -> Client {
    Client::new(name.to_owned(), [127, 0, 0, 1].into())
}

/// The rules of the module, with a look at every request.
impl<W> HeldLine<W> {
    fn waiting(&self) -> Vec<(Rank, &Waiting<W>)> {
        let waiting = self.line.iter().filter(|(_, waiting)| waiting.answer.is_none());
        let ranked = waiting.map(|(ticket, waiting)| {
            let share = &self.clients[&waiting.client];
            let is_passed_over = self.granted - share.seen >= self.bounds.all as u64;
            let turn = if is_passed_over { Turn::PassedOver } else { Turn::Holds(share.held) };
            ((turn, *ticket), waiting)
        });
        ranked.collect()
    }

    pub(super) fn next_by_scan(&self) -> Option<(Ticket, Answer)> {
        let Bounds { all, own } = self.bounds;
        let waiting = self.waiting();
        let held = |one: &Waiting<W>| self.clients[&one.client].held;
        let left = |one: &Waiting<W>| if held(one) + one.more <= own { 0 } else { all / 4 };
        let may_have = |one: &Waiting<W>| one.more + left(one) <= self.free;
        let holders = || waiting.iter().filter(|(_, one)| one.held > 0);
        let is_head = |rank: &Rank, one: &Waiting<W>| {
            waiting.iter().all(|(other, waiting)| waiting.client != one.client || rank.1 <= other.1)
        };
        let heads: Vec<_> = waiting.iter().filter(|(rank, one)| is_head(rank, one)).collect();
        let (first, head) = heads.iter().min_by_key(|(rank, _)| *rank)?;
        let is_passed_over = first.0 == Turn::PassedOver;
        let (before, left_of_head) = (held(head), left(head));
        let keeps_itself = left_of_head > 0 && (before > own || before + head.more + left_of_head > all);
        if is_passed_over && keeps_itself && !may_have(head) {
            let its = || holders().filter(|(_, one)| one.client == head.client);
            let next = its().filter(|(_, one)| may_have(one)).map(|(rank, _)| rank.1).min();
            let last = its().map(|(rank, _)| rank.1).max();
            return Some(next.map_or((last.unwrap_or(first.1), Answer::Refused), |next| (next, Answer::Granted)));
        }
        let small = heads.iter().filter(|(_, one)| !is_passed_over && left(one) == 0).map(|(rank, _)| *rank).min();
        let has_turn = |(rank, one): &&(Rank, &Waiting<W>)| one.held > 0 || rank == first || Some(*rank) == small;
        let next = waiting.iter().filter(has_turn).filter(|(_, one)| may_have(one)).map(|(rank, _)| *rank).min();
        match next {
            Some((_, next)) => Some((next, Answer::Granted)),
            None if self.moving > 0 => None,
            None => Some((holders().map(|(rank, _)| *rank).max().unwrap_or(*first).1, Answer::Refused)),
        }
    }
}

/// A request with its units.
struct Request {
    client: Client,
    units: usize,
    waits: Option<(Ticket, usize)>,
}

struct Table {
    line: HeldLine<()>,
    requests: Vec<Request>,
}

impl Table {
    fn new(all: usize, own: usize) -> Self {
        Self { line: HeldLine::new(all, own), requests: Vec::new() }
    }

    fn request(&mut self, name: &str) -> usize {
        self.requests.push(Request { client: client(name), units: 0, waits: None });
        self.requests.len() - 1
    }

    /// The request wants more; what it is answered now.
    fn grow(&mut self, number: usize, more: usize) -> Option<Answer> {
        let request = &mut self.requests[number];
        let ticket = self.line.enter(request.client.clone(), request.units, more, ());
        request.waits = Some((ticket, more));
        self.answer(number)
    }

    /// What it is answered now; it waits no longer if it has one.
    fn answer(&mut self, number: usize) -> Option<Answer> {
        let (ticket, more) = self.requests[number].waits?;
        let answer = self.line.line[&ticket].answer?;
        let is_granted = self.line.leave(ticket);
        assert_eq!(is_granted, answer == Answer::Granted);
        self.requests[number].waits = None;
        self.requests[number].units += if is_granted { more } else { 0 };
        Some(answer)
    }

    /// It waits no longer, without an answer.
    fn withdraw(&mut self, number: usize) {
        let (ticket, _) = self.requests[number].waits.take().unwrap();
        assert!(!self.line.leave(ticket));
    }

    fn give_back(&mut self, number: usize) {
        let units = std::mem::take(&mut self.requests[number].units);
        self.line.give_back(&self.requests[number].client.clone(), units);
    }
}

const GRANTED: Option<Answer> = Some(Answer::Granted);
const REFUSED: Option<Answer> = Some(Answer::Refused);

/// The example of the module.
#[test]
fn a_client_that_holds_little_comes_before_one_that_holds_much() {
    let mut table = Table::new(7, 7);
    let of_a: Vec<usize> = (0..3).map(|_| table.request("a")).collect();
    let b = table.request("b");
    for one in &of_a {
        assert_eq!(table.grow(*one, 2), GRANTED);
    }
    assert_eq!((table.grow(of_a[0], 2), table.grow(of_a[1], 2)), (None, None));
    // Now nobody goes on.
    assert_eq!(table.grow(of_a[2], 2), REFUSED);
    assert_eq!(table.grow(b, 2), None, "before the refused one has given its memory back");
    table.give_back(of_a[2]);
    assert_eq!((table.answer(b), table.answer(of_a[0]), table.line.free), (GRANTED, None, 1));
    table.give_back(b);
    assert_eq!((table.answer(of_a[0]), table.answer(of_a[1])), (GRANTED, None));
    table.give_back(of_a[0]);
    assert_eq!(table.answer(of_a[1]), GRANTED);
    table.give_back(of_a[1]);
    assert_eq!(table.line.state(), (7, 0));
}

/// Whoever comes again at once is behind those that wait, also of its own client.
#[test]
fn only_those_that_hold_memory_overtake() {
    let mut table = Table::new(8, 8);
    let (held, first, second) = (table.request("a"), table.request("b"), table.request("b"));
    assert_eq!(table.grow(held, 8), GRANTED);
    assert_eq!((table.grow(first, 6), table.grow(second, 1)), (None, None));
    let again = table.request("a");
    assert_eq!(table.grow(again, 1), None);
    table.give_back(held);
    assert_eq!((table.answer(first), table.answer(again), table.answer(second)), (GRANTED, GRANTED, GRANTED));
    // One in front that is given up is not in the way.
    table.give_back(first);
    let (large, small) = (table.request("c"), table.request("c"));
    assert_eq!((table.grow(large, 7), table.grow(small, 1)), (None, None));
    assert_eq!(table.grow(again, 1), GRANTED, "it gives back two when it has ended");
    table.withdraw(large);
    assert_eq!(table.answer(small), GRANTED);
}

/// What a client must leave to others is there for them.
#[test]
fn a_request_that_must_leave_a_quarter_is_not_in_the_way_of_small_clients() {
    let mut table = Table::new(16, 4);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| table.request(name));
    assert_eq!([(a, 4), (b, 1), (c, 3), (d, 3)].map(|(one, units)| table.grow(one, units)), [GRANTED; 4]);
    let [more_of_c, more_of_d, much_of_d, small] = ["c", "d", "d", "e"].map(|name| table.request(name));
    assert_eq!((table.line.free, table.grow(more_of_c, 3)), (5, None), "2 would be left");
    assert_eq!(table.grow(more_of_d, 1), GRANTED);
    // It must leave a quarter too, and comes behind c.
    table.give_back(b);
    table.give_back(more_of_d);
    assert_eq!((table.line.free, table.grow(much_of_d, 2)), (6, None), "4 would be left");
    assert_eq!((table.grow(small, 4), table.line.free), (GRANTED, 2));
    // It wants more than is free: those that come later wait for it, as ever.
    let (large, late) = (table.request("f"), table.request("g"));
    assert_eq!((table.grow(large, 3), table.grow(late, 1)), (None, None));
    table.give_back(small);
    assert_eq!([large, late, more_of_c, much_of_d].map(|one| table.answer(one)), [GRANTED, GRANTED, None, None]);
    [a, large, late].into_iter().for_each(|one| table.give_back(one));
    assert_eq!([more_of_c, much_of_d].map(|one| table.answer(one)), [GRANTED, GRANTED]);
}

/// However many requests a client has, and whether they go on or not.
#[test]
fn a_client_leaves_a_quarter_to_others() {
    let mut table = Table::new(16, 4);
    for number in 0..20 {
        let request = table.request("a");
        assert_eq!(table.grow(request, 1), if number < 12 { GRANTED } else { None }, "{number}");
    }
    let b = table.request("b");
    assert_eq!((table.grow(b, 3), table.grow(b, 1)), (GRANTED, GRANTED));
    assert_eq!(table.grow(b, 1), None, "more than one request may have");
    // One request may have as much as it needs, if there is that much.
    let mut table = Table::new(4, 4);
    let (all, more) = (table.request("a"), table.request("b"));
    assert_eq!((table.grow(all, 4), table.grow(more, 5)), (GRANTED, None));
    table.give_back(all);
    assert_eq!(table.answer(more), REFUSED, "more than there is");
    assert_eq!(table.line.state(), (4, 0));
}

/// However little they are, and though they leave no quarter.
#[test]
fn no_request_begins_before_an_earlier_one_of_its_client() {
    let mut table = Table::new(8, 8);
    let (held, large) = (table.request("a"), table.request("a"));
    assert_eq!((table.grow(held, 5), table.grow(large, 7)), (GRANTED, None));
    for _ in 0..20 {
        let small = table.request("a");
        assert_eq!(table.grow(small, 1), None);
    }
    table.give_back(held);
    assert_eq!(table.answer(large), GRANTED);
}

/// The example of the module.
#[test]
fn a_client_is_not_passed_over_without_end() {
    let mut table = Table::new(4, 4);
    let a = table.request("a");
    assert_eq!(table.grow(a, 2), GRANTED);
    let mut moving = table.request("0");
    assert_eq!((table.grow(moving, 2), table.grow(a, 1)), (GRANTED, None));
    for number in 1..=2 {
        let next = table.request(&number.to_string());
        assert_eq!(table.grow(next, 2), None);
        table.give_back(moving);
        assert_eq!((table.answer(next), table.answer(a)), (GRANTED, None), "{number}");
        moving = next;
    }
    let third = table.request("3");
    assert_eq!(table.grow(third, 2), None);
    table.give_back(moving);
    assert_eq!((table.answer(a), table.answer(third), table.line.free), (GRANTED, None, 1));
    // Its wait begins anew.
    assert_eq!(table.grow(a, 1), GRANTED);
    table.give_back(a);
    assert_eq!(table.answer(third), GRANTED);
}

/// The bodies of a client stand still: others do not wait for them, so the client must not wait for these.
#[test]
fn a_client_that_keeps_itself_waiting_is_refused_when_it_is_passed_over() {
    let mut table = Table::new(8, 2);
    let [still, grows, waits] = ["a"; 3].map(|name| table.request(name));
    assert_eq!([(still, 3), (grows, 2)].map(|(one, units)| table.grow(one, units)), [GRANTED; 2]);
    assert_eq!((table.grow(waits, 2), table.grow(grows, 2)), (None, None));
    let others = |table: &mut Table| {
        for number in 0..4 {
            assert_eq!((table.answer(waits), table.answer(grows)), (None, None), "after {number}");
            let other = table.request("b");
            assert_eq!(table.grow(other, 2), GRANTED);
            table.give_back(other);
        }
    };
    others(&mut table);
    assert_eq!((table.answer(grows), table.answer(waits)), (REFUSED, None), "it gives memory back");
    others(&mut table);
    assert_eq!((table.answer(grows), table.answer(waits)), (None, REFUSED));
    // If one of them can go on at that time, it does.
    let mut table = Table::new(32, 4);
    let [still, grows, waits] = ["a"; 3].map(|name| table.request(name));
    let [ends, one, other, late] = ["b", "c", "d", "e"].map(|name| table.request(name));
    assert_eq!([(ends, 16), (still, 5), (grows, 1)].map(|(one, units)| table.grow(one, units)), [GRANTED; 3]);
    assert_eq!((table.grow(waits, 20), table.grow(one, 3), table.grow(other, 4)), (None, GRANTED, GRANTED));
    assert_eq!((table.grow(grows, 1), table.line.free), (None, 3));
    for _ in 0..21 {
        let short = table.request("f");
        assert_eq!(table.grow(short, 1), GRANTED);
        table.give_back(short);
    }
    assert_eq!(table.grow(late, 4), None);
    table.give_back(ends);
    assert_eq!([late, grows, waits].map(|one| table.answer(one)), [GRANTED, GRANTED, None]);
}

/// It holds no more than a single request may, and others have the memory: it is next, though it will hold more than that.
#[test]
fn a_client_that_is_passed_over_waits_for_what_others_hold() {
    let mut table = Table::new(16, 4);
    let [one, waits, other, large] = ["a", "a", "b", "c"].map(|name| table.request(name));
    assert_eq!([(one, 3), (other, 4), (large, 4)].map(|(one, units)| table.grow(one, units)), [GRANTED; 3]);
    assert_eq!((table.grow(waits, 2), table.line.free), (None, 5), "3 would be left");
    for number in 0..4 {
        let short = table.request("d");
        assert_eq!((table.grow(short, 4), table.answer(waits)), (GRANTED, None), "{number}");
        table.give_back(short);
    }
    let late = table.request("e");
    assert_eq!((table.answer(waits), table.grow(late, 1)), (None, None), "nobody else begins");
    assert_eq!(table.grow(other, 1), GRANTED, "but those that hold memory go on");
    table.give_back(other);
    assert_eq!([waits, late].map(|one| table.answer(one)), [GRANTED; 2]);
    // More than there is besides what it holds: its own requests have the memory.
    let mut table = Table::new(8, 4);
    let [one, waits] = ["a"; 2].map(|name| table.request(name));
    assert_eq!((table.grow(one, 3), table.grow(waits, 4)), (GRANTED, None));
    for _ in 0..2 {
        assert_eq!(table.answer(waits), None);
        let short = table.request("d");
        assert_eq!(table.grow(short, 4), GRANTED);
        table.give_back(short);
    }
    assert_eq!(table.answer(waits), REFUSED);
}

/// However many wait: each client with one request, and one with many that must leave a quarter.
#[test]
fn the_next_answer_is_found_among_a_few() {
    let mut table = Table::new(400, 20);
    let begin: Vec<usize> = (0..300).map(|_| table.request("a")).collect();
    assert!(begin.iter().all(|request| table.grow(*request, 1) == GRANTED));
    assert!(begin[1..].iter().all(|request| table.grow(*request, 1).is_none()));
    for number in 0..300 {
        let (other, own) = (table.request(&format!("b{number}")), table.request("a"));
        let expected = if number < 20 { GRANTED } else { None };
        assert_eq!((table.grow(other, 5), table.grow(own, 1)), (expected, None), "{number}");
    }
    let first = table.line.order.first().unwrap();
    assert_eq!((table.line.that_may_go(first).count(), table.line.free), (0, 0));
    table.give_back(begin[0]);
    assert_eq!((table.line.waiting().len(), table.line.free), (299 + 300 + 280, 1));
    assert!(table.line.that_may_go(first).count() <= 3);
}

/// A request of the model. It grows to what it needs, and ends.
struct Modelled {
    client: usize,
    held: usize,
    needs: usize,
    waits: Option<Wait>,
    /// It has been refused, so it ends.
    is_over: bool,
}

struct Wait {
    ticket: Ticket,
    more: usize,
    /// What others were granted meanwhile, and may be.
    grants: usize,
    most_grants: usize,
}

struct Model {
    all: usize,
    own: usize,
    line: HeldLine<()>,
    requests: Vec<Modelled>,
    /// Clients with one request each.
    strangers: usize,
}

/// What happens next. The number selects among the requests that can do it.
#[derive(Debug, Clone)]
enum Event {
    /// A request of one of three clients, or if there is none, of a client that was never there.
    Come {
        client: Option<usize>,
        needs: usize,
        first: usize,
    },
    GoOn {
        which: usize,
        more: usize,
    },
    GiveUp(usize),
}

/// Requests that are there at the same time.
const PRESENT: usize = 8;
/// Its requests stand still until the end, in some cases.
const STILL: usize = 0;

fn event() -> impl Strategy<Value = Event> {
    let client = proptest::option::weighted(0.6, 0usize..3);
    prop_oneof![
        10 => (client, 1usize..9, 1usize..9).prop_map(|(client, needs, first)| Event::Come { client, needs, first }),
        10 => (0usize..PRESENT, 1usize..9).prop_map(|(which, more)| Event::GoOn { which, more }),
        1 => (0usize..PRESENT).prop_map(Event::GiveUp),
    ]
}

impl Model {
    fn new(all: usize, own: usize) -> Self {
        Self { all, own, line: HeldLine::new(all, own), requests: Vec::new(), strangers: 3 }
    }

    fn client(number: usize) -> Client {
        client(&number.to_string())
    }

    fn apply(&mut self, event: Event, stands_still: bool) {
        match event {
            Event::Come { .. } if self.requests.len() == PRESENT => {}
            Event::Come { client, needs, first } => {
                self.strangers += usize::from(client.is_none());
                let (client, needs) = (client.unwrap_or(self.strangers), needs.min(self.own));
                self.requests.push(Modelled { client, held: 0, needs, waits: None, is_over: false });
                self.enter(self.requests.len() - 1, first);
            }
            Event::GoOn { which, more } => {
                let can = |one: &Modelled| one.waits.is_none() && !(stands_still && one.client == STILL);
                let moving: Vec<usize> = (0..self.requests.len()).filter(|one| can(&self.requests[*one])).collect();
                if !moving.is_empty() {
                    self.go_on(moving[which % moving.len()], more);
                }
            }
            Event::GiveUp(which) => {
                let waits = |one: &usize| self.requests[*one].waits.is_some();
                let waiting: Vec<usize> = (0..self.requests.len()).filter(waits).collect();
                if !waiting.is_empty() {
                    let number = waiting[which % waiting.len()];
                    let wait = self.requests[number].waits.take().unwrap();
                    assert!(!self.line.leave(wait.ticket));
                    self.end(number);
                }
            }
        }
        self.settle();
    }

    fn go_on(&mut self, number: usize, more: usize) {
        let request = &self.requests[number];
        if request.is_over || request.held == request.needs { self.end(number) } else { self.enter(number, more) }
    }

    fn end(&mut self, number: usize) {
        let request = self.requests.remove(number);
        if request.held > 0 {
            self.line.give_back(&Self::client(request.client), request.held);
        }
    }

    fn enter(&mut self, number: usize, more: usize) {
        let others = self.requests.iter().enumerate().filter(|(other, _)| *other != number);
        let present = others.filter(|(_, other)| other.waits.is_some() || other.held > 0);
        let clients: Vec<usize> = present.map(|(_, other)| other.client).collect();
        let request = &mut self.requests[number];
        let (p, m) = (clients.len(), clients.iter().filter(|client| **client == request.client).count());
        let most_grants = self.own * (self.all * (m * (self.own + 1) + 1) + 2 * p);
        let more = more.min(request.needs - request.held);
        let ticket = self.line.enter(Self::client(request.client), request.held, more, ());
        request.waits = Some(Wait { ticket, more, grants: 0, most_grants });
    }

    /// Takes the answers, and checks what holds at any time.
    fn settle(&mut self) {
        let mut granted = 0;
        for request in &mut self.requests {
            let Some(Wait { ticket, more, .. }) = request.waits else { continue };
            let Some(answer) = self.line.line[&ticket].answer else { continue };
            assert_eq!(self.line.leave(ticket), answer == Answer::Granted);
            request.waits = None;
            match answer {
                Answer::Granted => (granted, request.held) = (granted + 1, request.held + more),
                Answer::Refused => request.is_over = true,
            }
        }
        for wait in self.requests.iter_mut().filter_map(|request| request.waits.as_mut()) {
            wait.grants += granted;
            assert!(wait.grants <= wait.most_grants, "{} grants to others", wait.grants);
        }
        let (free, moving) = self.line.state();
        assert_eq!(self.requests.iter().map(|request| request.held).sum::<usize>() + free, self.all);
        let waits = self.requests.iter().any(|request| request.waits.is_some());
        assert!(!waits || moving > 0, "they wait for each other");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered_in_time(
        (all, own) in (1usize..9).prop_flat_map(|all| (Just(all), 1..=all)),
        stands_still in any::<bool>(),
        events in proptest::collection::vec(event(), 1..1000),
    ) {
        let mut model = Model::new(all, own);
        for event in events {
            model.apply(event, stands_still);
        }
        while !model.requests.is_empty() {
            model.apply(Event::GoOn { which: 0, more: 1 }, false);
        }
        assert_eq!(model.line.state(), (all, 0));
    }
}
