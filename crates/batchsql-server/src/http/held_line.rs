//! Owns who gets memory next, of the requests that wait for it: a state without a clock.
//! Must not know requests or how they wait.
//!
//! # Order
//! A request that holds memory gives it back when it has ended, so it gets more as soon as that is free. One that holds none *begins* in
//! its turn: after the requests of its client that wait and came before it, and the client that holds the least comes first. So a client
//! with many large bodies waits for its own ones, and not others for it:
//!
//! ```text
//! free 1   a holds 6 (3 requests, all of which want 2 more), b comes and wants 2
//! nobody that holds memory goes on    the last request of a is refused: it gives 2 back
//! free 3   b gets 2                   then a waits for 2, and 1 is free
//! ```
//!
//! A client that holds more than a single request may leaves a quarter of all memory to others, also while its bodies stand still.
//! A request that must leave it is not in the way of other clients that need not:
//!
//! ```text
//! of 16, one request may have 4, free 5    c holds 3 and wants 3 more: it waits, and d, which holds 3, gets 1
//! ```
//!
//! # Bound
//! A client that waits is *passed over* when others have got as many units as there are at all, and none of its requests had an answer
//! meanwhile. Then it comes before the others, among such clients by arrival, and nobody else begins. Others do not wait for one that
//! holds more than a single request may, or wants more than they could give back. If it must leave a quarter that is not there, one of its
//! own requests is answered at once: one that holds memory gets more if it can, else the last of these is refused, and if none of these
//! waits, its first one.
//!
//! ```text
//! of 4, free 0    a holds 2 and wants 1 more; others hold 2, and as soon as one ends, the next one gets its 2
//! the second of these has begun: a is passed over, the third waits    when the second has ended, a gets 1
//! ```
//!
//! So a request that waits is answered after at most `own * (all * (m * (own + 1) + 1) + 2 * p)` grants to others, where `p` requests are
//! there when it comes (they wait or hold memory), `m` of them of its client; `all` is all memory, and `own` what one request wants at most.
//! Those that are refused end; requests that stand still are granted nothing, and the time of those that wait is limited elsewhere.
//!
//! - Before it, no request of its client that comes later begins. So its client has at most `m * (own + 1)` answers before.
//! - Between two answers of the client, others get at most `all` units until it is passed over. From then on, only requests begin
//!   that came before it, each once: `p` in all. They, and those that held memory (`all` at most), grow by less than `own` each.
//! - It does not wait for what nobody gives back: if every request that holds memory waits, the last one is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::http::client::Client;
use crate::http::held_order::{Holders, Order, Place, Rank, Ticket, Turn};

/// What became of a request that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Granted,
    Refused,
}

/// Units of memory: those that are free, and those of clients.
#[derive(Debug)]
pub(super) struct HeldLine<W> {
    bounds: Bounds,
    free: usize,
    /// Of requests that do not wait for more.
    moving: usize,
    /// Clients that hold any, or wait.
    clients: HashMap<Client, Share>,
    /// Those that wait.
    order: Order,
    line: BTreeMap<Ticket, Waiting<W>>,
    arrived: u64,
    /// Units that were ever granted.
    granted: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    all: usize,
    /// What a client may hold at any rate, if it is free: as much as one request may have.
    own: usize,
}

/// What a client has.
#[derive(Debug, Default)]
struct Share {
    held: usize,
    /// Its requests without an answer, and what they want.
    waits: BTreeMap<Ticket, usize>,
    /// Those that hold memory, by what they want.
    holders: BTreeMap<usize, BTreeSet<Ticket>>,
    /// What was granted when the last of its requests had an answer, or when it began to wait.
    seen: u64,
    /// As it is in the order.
    place: Option<Place>,
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

impl Bounds {
    /// What must be free when a request has got what it wants, of a client that holds so much before.
    fn left_to_others(self, held: usize, more: usize) -> usize {
        if held + more <= self.own { 0 } else { self.all / 4 }
    }

    /// What must be free before that.
    fn needs(self, held: usize, more: usize) -> usize {
        more + self.left_to_others(held, more)
    }

    /// The most that a request may have now, of a client that holds so much.
    fn most(self, held: usize, free: usize) -> usize {
        let small = free.min(self.own.saturating_sub(held));
        small.max(free.saturating_sub(self.all / 4))
    }
}

impl Share {
    fn add(&mut self, ticket: Ticket, held: usize, more: usize) {
        self.waits.insert(ticket, more);
        if held > 0 {
            self.holders.entry(more).or_default().insert(ticket);
        }
    }

    fn remove(&mut self, ticket: Ticket) {
        let Some(more) = self.waits.remove(&ticket) else { return };
        if let Some(holders) = self.holders.get_mut(&more) {
            holders.remove(&ticket);
            if holders.is_empty() {
                self.holders.remove(&more);
            }
        }
    }

    /// Its first request that holds memory and wants no more than this.
    fn first_holder(&self, most: usize) -> Option<Ticket> {
        self.holders.range(..=most).filter_map(|(_, tickets)| tickets.first().copied()).min()
    }

    fn last_holder(&self) -> Option<Ticket> {
        self.holders.values().filter_map(|tickets| tickets.last().copied()).max()
    }

    fn place(&self, bounds: Bounds, granted: u64) -> Option<Place> {
        let (head, more) = self.waits.first_key_value()?;
        let is_passed_over = granted - self.seen >= bounds.all as u64;
        let least = self.holders.keys().next().map(|least| bounds.needs(self.held, *least));
        Some(Place {
            turn: if is_passed_over { Turn::PassedOver } else { Turn::Holds(self.held) },
            head: *head,
            is_small: bounds.left_to_others(self.held, *more) == 0,
            seen: self.seen,
            holders: self.last_holder().zip(least).map(|(last, least)| Holders { last, least }),
        })
    }
}

impl<W> HeldLine<W> {
    pub(super) fn new(all: usize, own: usize) -> Self {
        let (clients, order, line) = (HashMap::new(), Order::default(), BTreeMap::new());
        Self { bounds: Bounds { all, own }, free: all, moving: 0, clients, order, line, arrived: 0, granted: 0 }
    }

    /// A request that has `held` wants more. `wake` is dropped when it has its answer, perhaps at once.
    pub(super) fn enter(&mut self, client: Client, held: usize, more: usize, wake: W) -> Ticket {
        self.moving -= held;
        let ticket = Ticket(self.arrived);
        self.arrived += 1;
        let granted = self.granted;
        self.change(&client, |share| {
            if share.waits.is_empty() {
                share.seen = granted;
            }
            share.add(ticket, held, more);
        });
        self.line.insert(ticket, Waiting { client, held, more, answer: None, wake: Some(wake) });
        self.serve();
        ticket
    }

    /// The request waits no longer; whether it has got what it wanted.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let waited = self.line.remove(&ticket).expect("it leaves once");
        if waited.answer.is_none() {
            self.moving += waited.held;
            self.change(&waited.client, |share| share.remove(ticket));
            // Perhaps it was in the way.
            self.serve();
        }
        waited.answer == Some(Answer::Granted)
    }

    /// A request that does not wait gives units back.
    pub(super) fn give_back(&mut self, client: &Client, units: usize) {
        self.free += units;
        self.moving -= units;
        self.change(client, |share| share.held -= units);
        self.serve();
    }

    /// Changes what a client has, and where it is in the order.
    fn change(&mut self, client: &Client, change: impl FnOnce(&mut Share)) {
        let share = match self.clients.get_mut(client) {
            Some(share) => share,
            None => self.clients.entry(client.clone()).or_default(),
        };
        if let Some(place) = share.place.take() {
            self.order.remove(&place);
        }
        change(share);
        share.place = share.place(self.bounds, self.granted);
        if let Some(place) = &share.place {
            self.order.insert(place);
        } else if share.held == 0 {
            self.clients.remove(client);
        }
    }

    fn share(&self, ticket: Ticket) -> &Share {
        &self.clients[&self.line[&ticket].client]
    }

    fn may_have(&self, ticket: Ticket) -> bool {
        self.line[&ticket].more <= self.bounds.most(self.share(ticket).held, self.free)
    }

    /// Whether others, which must not wait for this client, would do so if they waited for its first request.
    fn keeps_itself_waiting(&self, head: Ticket) -> bool {
        let (held, more) = (self.share(head).held, self.line[&head].more);
        let left = self.bounds.left_to_others(held, more);
        left > 0 && (held > self.bounds.own || held + more + left > self.bounds.all)
    }

    /// Answers requests as far as there is memory, or nobody would give any back.
    fn serve(&mut self) {
        loop {
            let next = self.next();
            #[cfg(test)]
            assert_eq!(next, self.next_by_scan());
            let Some((ticket, answer)) = next else { return };
            self.answer(ticket, answer);
        }
    }

    /// The next answer, if there is one now.
    fn next(&self) -> Option<(Ticket, Answer)> {
        let first = self.order.first()?;
        if first.0 == Turn::PassedOver && self.keeps_itself_waiting(first.1) && !self.may_have(first.1) {
            return Some(self.among_its_own(first.1));
        }
        if let Some((_, next)) = self.that_may_go(first).min() {
            return Some((next, Answer::Granted));
        }
        if self.moving > 0 {
            return None;
        }
        // If nobody holds memory, the first one wants more than there is.
        Some((self.order.last_holder().unwrap_or(first.1), Answer::Refused))
    }

    /// Requests that can be granted what they want, the first one among them: of a client that holds memory not more than one.
    fn that_may_go(&self, first: Rank) -> impl Iterator<Item = Rank> {
        // What others must leave is for these, until one of the others is passed over.
        let small = if first.0 == Turn::PassedOver { None } else { self.order.first_small() };
        let begin = std::iter::once(first).chain(small).filter(|(_, ticket)| self.may_have(*ticket));
        let go_on = self.order.that_go_on(self.free).filter_map(|ticket| {
            let share = self.share(ticket);
            let next = share.first_holder(self.bounds.most(share.held, self.free));
            share.place.map(|place| place.turn).zip(next)
        });
        begin.chain(go_on)
    }

    /// The next answer of a client whose first request waits for memory that the client has itself.
    fn among_its_own(&self, head: Ticket) -> (Ticket, Answer) {
        let share = self.share(head);
        match share.first_holder(self.bounds.most(share.held, self.free)) {
            Some(next) => (next, Answer::Granted),
            None => (share.last_holder().unwrap_or(head), Answer::Refused),
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        let waiting = self.line.get_mut(&ticket).expect("it is in the line");
        waiting.answer = Some(answer);
        waiting.wake = None;
        let more = if answer == Answer::Granted { waiting.more } else { 0 };
        self.moving += waiting.held + more;
        self.free -= more;
        self.granted += more as u64;
        let (client, seen) = (waiting.client.clone(), self.granted);
        self.change(&client, |share| {
            share.held += more;
            share.remove(ticket);
            share.seen = seen;
        });
        let Some(passed) = self.granted.checked_sub(self.bounds.all as u64) else { return };
        while let Some(ticket) = self.order.passed_over(passed) {
            let client = self.line[&ticket].client.clone();
            self.change(&client, |_| {});
        }
    }

    /// Units that are free, and that moving requests hold.
    #[cfg(test)]
    pub(super) fn state(&self) -> (usize, usize) {
        assert!(self.free < self.bounds.all || self.clients.is_empty());
        (self.free, self.moving)
    }
}

#[cfg(test)]
#[path = "held_line_tests.rs"]
mod tests;
