//! Owns who gets memory next, of the requests that wait for it: a state without a clock.
//! Must not know requests or how they wait.
//!
//! The client that holds the least comes first, and its requests in the order in which they came. A request overtakes another one only
//! if it holds memory already, which it gives back when it has ended. So a client with many large bodies waits for its own ones,
//! and not others for it:
//!
//! ```text
//! free 1   a holds 6 (3 requests, all of which want 2 more), b comes and wants 2
//! nobody that holds memory goes on    the last request of a is refused: it gives 2 back
//! free 3   b gets 2                   then a waits for 2, and 1 is free
//! ```
//!
//! A client that holds more than a single request may leaves a quarter of all memory to others, also while its bodies stand still.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Who sends requests. Clients behind one proxy are told apart by their tokens, and those with one token by their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    /// The name of its token; empty if none is needed.
    pub(crate) token: String,
    pub(crate) address: IpAddr,
}

/// The place of a request in the line, by its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What became of a request that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Granted,
    Refused,
}

/// Units of memory: those that are free, and those of clients.
#[derive(Debug)]
pub(super) struct HeldLine<W> {
    all: usize,
    /// What a client may hold at any rate, if it is free: as much as one request may have.
    own: usize,
    free: usize,
    /// Of requests that do not wait for more.
    moving: usize,
    /// Clients that hold any.
    clients: HashMap<Client, usize>,
    line: BTreeMap<Ticket, Waiting<W>>,
    arrived: u64,
}

#[derive(Debug)]
struct Waiting<W> {
    client: Client,
    /// What the request has.
    held: usize,
    more: usize,
    /// None while it waits.
    answer: Option<Answer>,
    /// Dropped with the answer, which wakes the request.
    wake: Option<W>,
}

impl<W> HeldLine<W> {
    pub(super) fn new(all: usize, own: usize) -> Self {
        let (clients, line) = (HashMap::new(), BTreeMap::new());
        Self { all, own, free: all, moving: 0, clients, line, arrived: 0 }
    }

    /// A request that has `held` wants more. `wake` is dropped when it has its answer, perhaps at once.
    pub(super) fn enter(&mut self, client: Client, held: usize, more: usize, wake: W) -> Ticket {
        self.moving -= held;
        let ticket = Ticket(self.arrived);
        self.arrived += 1;
        self.line.insert(ticket, Waiting { client, held, more, answer: None, wake: Some(wake) });
        self.serve();
        ticket
    }

    /// The request waits no longer; whether it has got what it wanted.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let waited = self.line.remove(&ticket).expect("it leaves once");
        if waited.answer.is_none() {
            self.moving += waited.held;
            // Perhaps it was in the way.
            self.serve();
        }
        waited.answer == Some(Answer::Granted)
    }

    /// A request that does not wait gives units back.
    pub(super) fn give_back(&mut self, client: &Client, units: usize) {
        self.free += units;
        self.moving -= units;
        let held = self.clients.get_mut(client).expect("it holds them");
        *held -= units;
        if *held == 0 {
            self.clients.remove(client);
        }
        self.serve();
    }

    fn held_by(&self, client: &Client) -> usize {
        self.clients.get(client).copied().unwrap_or(0)
    }

    fn may_have(&self, waiting: &Waiting<W>) -> bool {
        let after = self.held_by(&waiting.client) + waiting.more;
        let left_to_others = if after <= self.own { 0 } else { self.all / 4 };
        waiting.more + left_to_others <= self.free
    }

    /// Answers requests as far as there is memory. If nobody would give any back, one of them is refused.
    fn serve(&mut self) {
        loop {
            let waiting = || self.line.iter().filter(|(_, waiting)| waiting.answer.is_none());
            let rank = |ticket: &Ticket, waiting: &Waiting<W>| (self.held_by(&waiting.client), *ticket);
            let Some((_, first)) = waiting().map(|(ticket, waiting)| rank(ticket, waiting)).min() else { return };
            let may_go = |(ticket, waiting): &(&Ticket, &Waiting<W>)| {
                (**ticket == first || waiting.held > 0) && self.may_have(waiting)
            };
            let next = waiting().filter(may_go).map(|(ticket, waiting)| rank(ticket, waiting)).min();
            if let Some((_, next)) = next {
                self.grant(next);
                continue;
            }
            if self.moving > 0 {
                return;
            }
            let holds = waiting().filter(|(_, waiting)| waiting.held > 0);
            let last = holds.map(|(ticket, waiting)| rank(ticket, waiting)).max();
            // If nobody holds memory, it wants more than there is.
            self.refuse(last.map_or(first, |(_, last)| last));
        }
    }

    fn grant(&mut self, ticket: Ticket) {
        let waiting = self.line.get_mut(&ticket).expect("it is in the line");
        self.free -= waiting.more;
        self.moving += waiting.held + waiting.more;
        *self.clients.entry(waiting.client.clone()).or_default() += waiting.more;
        waiting.answer = Some(Answer::Granted);
        waiting.wake = None;
    }

    fn refuse(&mut self, ticket: Ticket) {
        let waiting = self.line.get_mut(&ticket).expect("it is in the line");
        self.moving += waiting.held;
        waiting.answer = Some(Answer::Refused);
        waiting.wake = None;
    }

    /// Units that are free, and that moving requests hold.
    #[cfg(test)]
    pub(super) fn state(&self) -> (usize, usize) {
        assert!(self.free < self.all || self.clients.is_empty());
        (self.free, self.moving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> Client {
        Client { token: name.to_owned(), address: [127, 0, 0, 1].into() }
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
        let (ticket, _) = table.requests[large].waits.take().unwrap();
        assert!(!table.line.leave(ticket));
        assert_eq!(table.answer(small), GRANTED);
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
}
