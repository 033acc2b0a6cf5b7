//! Counts users, hours and simultaneous sessions of each product.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Month, Row};

/// A time in which a session had a product, ms since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
}

/// Indices of names.
#[derive(Debug, Default)]
struct Users(HashMap<String, u32>);

impl Users {
    fn index(&mut self, name: &str) -> u32 {
        let next = self.0.len() as u32;
        self.0.get(name).copied().unwrap_or_else(|| *self.0.entry(name.to_owned()).or_insert(next))
    }
}

/// What a user was, at any time.
#[derive(Clone, Copy, Debug, Default)]
struct Classes {
    is_professional: bool,
    is_non_professional: bool,
}

#[derive(Debug, Default)]
struct Product {
    users: HashMap<u32, Classes>,
    /// Twice the time of each begin and end, and 1 for a begin: sorted, ends come before begins of the same time.
    edges: Vec<u64>,
    session_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tally {
    month: Month,
    users: Users,
    /// By name and age of the data.
    names: HashMap<(String, u64), u32>,
    products: Vec<Product>,
    all: Product,
}

impl Tally {
    pub(super) fn new(month: Month) -> Self {
        Self { month, users: Users::default(), names: HashMap::new(), products: Vec::new(), all: Product::default() }
    }

    pub(super) fn user(&mut self, name: &str) -> u32 {
        self.users.index(name)
    }

    /// The indices of products. Rights without a product are one without a name.
    pub(super) fn products(&mut self, names: &[Cow<'_, str>], delay_s: u64) -> Vec<u32> {
        let unnamed = [Cow::Borrowed("")];
        let names = if names.is_empty() { &unnamed } else { names };
        let mut index = |name: &str| {
            let next = self.names.len() as u32;
            *self.names.entry((name.to_owned(), delay_s)).or_insert(next)
        };
        let mut products: Vec<u32> = names.iter().map(|name| index(name)).collect();
        products.sort_unstable();
        products.dedup();
        products
    }

    /// Adds the part of a session that is in the month.
    pub(super) fn add(&mut self, user: u32, professional: Option<bool>, products: &[u32], interval: Interval) {
        if interval.from_ms >= self.month.end_ms || interval.to_ms < self.month.start_ms {
            return;
        }
        let interval = Interval {
            from_ms: interval.from_ms.max(self.month.start_ms),
            to_ms: interval.to_ms.min(self.month.end_ms),
        };
        self.all.add(user, professional, interval);
        for product in products {
            let index = *product as usize;
            if self.products.len() <= index {
                self.products.resize_with(index + 1, Product::default);
            }
            self.products[index].add(user, professional, interval);
        }
    }

    /// The products by name, and all together.
    pub(super) fn finish(self) -> (Vec<Row>, Row) {
        let mut products: Vec<Option<Product>> = self.products.into_iter().map(Some).collect();
        let mut names: Vec<((String, u64), u32)> = self.names.into_iter().collect();
        names.sort_unstable();
        let rows = names.into_iter().filter_map(|((name, delay_s), index)| {
            let product = products.get_mut(index as usize)?.take()?;
            (!product.users.is_empty()).then(|| product.row(name, delay_s))
        });
        (rows.collect(), self.all.row(String::new(), 0))
    }
}

impl Product {
    fn add(&mut self, user: u32, professional: Option<bool>, interval: Interval) {
        let classes = self.users.entry(user).or_default();
        match professional {
            Some(true) => classes.is_professional = true,
            Some(false) => classes.is_non_professional = true,
            None => {}
        }
        if interval.to_ms >= interval.from_ms {
            // A session of less than a millisecond is one in that millisecond.
            let to_ms = interval.to_ms.max(interval.from_ms + 1);
            self.edges.extend([interval.from_ms * 2 + 1, to_ms * 2]);
            self.session_ms += interval.to_ms - interval.from_ms;
        }
    }

    fn row(mut self, product: String, delay_s: u64) -> Row {
        self.edges.sort_unstable();
        let (mut present, mut peak_sessions) = (0u64, 0);
        for edge in self.edges {
            present = if edge % 2 == 1 { present + 1 } else { present - 1 };
            peak_sessions = present.max(peak_sessions);
        }
        let mut row = Row { product, delay_s, peak_sessions, session_ms: self.session_ms, ..Row::default() };
        for classes in self.users.into_values() {
            match classes {
                Classes { is_professional: true, .. } => row.professional += 1,
                Classes { is_non_professional: true, .. } => row.non_professional += 1,
                _ => row.unclassified += 1,
            }
        }
        row
    }
}
