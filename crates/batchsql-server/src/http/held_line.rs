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
//! A request that must leave it is not in the way of those that need not. It does not wait for ever: when other requests of its client
//! have ended, it need not either.
//!
//! ```text
//! of 16, one request may have 4, free 5    c holds 3 and wants 3 more: it waits, and d, which holds 3, gets 1
//! ```

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

/// The bits of an IPv6 address that are not the network of a client, which has all addresses of it.
const INTERFACE: u128 = u64::MAX as u128;

/// Who sends requests. Clients behind one proxy are told apart by their tokens, and those with one token by their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    token: String,
    /// Of IPv6 the network, a /64.
    address: IpAddr,
}

impl Client {
    /// `token` is the name of its token, empty if none is needed.
    pub(crate) fn new(token: String, address: IpAddr) -> Self {
        // An IPv4 address may come as an IPv6 one.
        let address = match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !INTERFACE).into(),
            address => address,
        };
        Self { token, address }
    }
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

    /// What must be free when the request has got what it wants.
    fn left_to_others(&self, waiting: &Waiting<W>) -> usize {
        let after = self.held_by(&waiting.client) + waiting.more;
        if after <= self.own { 0 } else { self.all / 4 }
    }

    fn may_have(&self, waiting: &Waiting<W>) -> bool {
        waiting.more + self.left_to_others(waiting) <= self.free
    }

    /// Answers requests as far as there is memory. If nobody would give any back, one of them is refused.
    fn serve(&mut self) {
        loop {
            let waiting = || self.line.iter().filter(|(_, waiting)| waiting.answer.is_none());
            let rank = |ticket: &Ticket, waiting: &Waiting<W>| (self.held_by(&waiting.client), *ticket);
            let Some((_, first)) = waiting().map(|(ticket, waiting)| rank(ticket, waiting)).min() else { return };
            // What others must leave is for these.
            let small = waiting().filter(|(_, waiting)| self.left_to_others(waiting) == 0);
            let first_small = small.map(|(ticket, waiting)| rank(ticket, waiting)).min().map(|(_, ticket)| ticket);
            let may_go = |(ticket, waiting): &(&Ticket, &Waiting<W>)| {
                let is_first = **ticket == first || Some(**ticket) == first_small;
                (is_first || waiting.held > 0) && self.may_have(waiting)
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
        Client::new(name.to_owned(), [127, 0, 0, 1].into())
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

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let of = |address: &str| Client::new("a".to_owned(), address.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("::ffff:192.0.2.1"), of("::ffff:192.0.2.2"));
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
