//! Lists of studies, intersected and united while they are read.

use crate::{
    project::next_bucket,
    rows::{Rows, successor},
};
use bytes::Bytes;
use cairn_archive::{
    index_rows::{
        OrderKey, POSTINGS,
        access::{BucketList, Token, year_bucket, year_of_bucket},
    },
    plan::Lists,
};
use cairn_store_api::{CkRange, StoreError};
use futures_util::future::BoxFuture;
use std::collections::VecDeque;

/// Fewest and most rows read at once.
const PAGE_MIN: usize = 8;

/// What the lists of one query share.
pub(crate) struct Context {
    pub(crate) rows: Rows,
    pub(crate) tenant: String,
    /// Buckets of years, in order, as far as they were asked for.
    years: Vec<Bytes>,
    years_known: bool,
}

impl Context {
    pub(crate) fn new(rows: Rows, tenant: String) -> Self {
        Self { rows, tenant, years: Vec::new(), years_known: false }
    }

    /// The first year's bucket after this one (`None`: the first of all).
    async fn year_after(&mut self, bucket: Option<&Bytes>) -> Result<Option<Bytes>, StoreError> {
        loop {
            let found = self.years.iter().find(|year| bucket.is_none_or(|bucket| *year > bucket));
            if found.is_some() || self.years_known {
                return Ok(found.cloned());
            }
            match next_bucket(&self.rows, BucketList::Years, &self.tenant, self.years.last()).await? {
                Some(year) => self.years.push(year),
                None => self.years_known = true,
            }
        }
    }
}

/// What beginning to read a list costs, in rows read on.
const SEEK_ROWS: u64 = 32;
/// What reading and checking a study costs, in rows of a list.
const STUDY_ROWS: u64 = 64;
/// Rows of a list that may be read before it has to be worth it.
const TRIAL_ROWS: u64 = 256;

/// A position in lists.
pub(crate) enum Cursor {
    One(Box<List>),
    And(Box<Intersection>),
    Or(Vec<Cursor>),
}

impl Cursor {
    pub(crate) fn new(lists: &Lists, page: usize) -> Self {
        match lists {
            Lists::One { token, from, to } => Self::One(Box::new(List::new(token.clone(), *from, *to, page))),
            Lists::And(lists) => Self::And(Box::new(Intersection::new(lists, page))),
            Lists::Or(lists) => Self::Or(lists.iter().map(|list| Self::new(list, page)).collect()),
        }
    }

    /// The first study at or after a key; asked for in ascending order.
    pub(crate) fn seek<'a>(
        &'a mut self,
        context: &'a mut Context,
        at: Bytes,
    ) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        match self {
            Self::One(list) => Box::pin(list.seek(context, at)),
            Self::And(lists) => Box::pin(lists.seek(context, at)),
            Self::Or(lists) => Box::pin(unite(lists, context, at)),
        }
    }

    /// What was read so far, in rows.
    fn spent(&self) -> u64 {
        match self {
            Self::One(list) => list.spent,
            Self::And(lists) => lists.members.iter().map(|member| member.cursor.spent()).sum(),
            Self::Or(lists) => lists.iter().map(Self::spent).sum(),
        }
    }
}

/// Lists that studies must be in all of.
pub(crate) struct Intersection {
    members: Vec<Member>,
    /// Who proposes the next study: the one that jumped last, for it has the fewest.
    leader: usize,
}

struct Member {
    cursor: Cursor,
    /// Studies that others proposed and that are not in it.
    excluded: u64,
}

impl Member {
    /// Whether reading it cost more than reading and checking the studies that it excluded would have.
    fn is_worthless(&self) -> bool {
        self.cursor.spent() > TRIAL_ROWS.saturating_add(self.excluded.saturating_mul(STUDY_ROWS))
    }
}

impl Intersection {
    fn new(lists: &[Lists], page: usize) -> Self {
        let members = lists.iter().map(|list| Member { cursor: Cursor::new(list, page), excluded: 0 });
        Self { members: members.collect(), leader: 0 }
    }

    /// Each list in turn goes on to where the others are, until all are at one study. Lists that turn out to exclude
    /// little are not read on: whoever follows a list checks the study anyway.
    async fn seek(&mut self, context: &mut Context, at: Bytes) -> Result<Option<Bytes>, StoreError> {
        let (mut candidate, mut agreed, mut turn) = (at, 0, self.leader);
        while agreed < self.members.len() {
            let Some(member) = self.members.get_mut(turn) else { return Ok(None) };
            match member.cursor.seek(context, candidate.clone()).await? {
                None => return Ok(None),
                Some(found) if found == candidate => agreed += 1,
                Some(found) => {
                    // Going on from the last answer is no merit.
                    member.excluded += u64::from(agreed > 0);
                    (candidate, agreed, self.leader) = (found, 1, turn);
                }
            }
            turn = (turn + 1) % self.members.len();
        }
        self.leave_out();
        Ok((!self.members.is_empty()).then_some(candidate))
    }

    fn leave_out(&mut self) {
        let mut at = 0;
        while at < self.members.len() {
            if at != self.leader && self.members.get(at).is_some_and(Member::is_worthless) {
                self.members.remove(at);
                self.leader -= usize::from(at < self.leader);
            } else {
                at += 1;
            }
        }
    }
}

async fn unite(lists: &mut [Cursor], context: &mut Context, at: Bytes) -> Result<Option<Bytes>, StoreError> {
    let mut first: Option<Bytes> = None;
    for list in lists {
        if let Some(found) = list.seek(context, at.clone()).await?
            && first.as_ref().is_none_or(|first| found < *first)
        {
            first = Some(found);
        }
    }
    Ok(first)
}

/// One list.
pub(crate) struct List {
    token: Token,
    lower: Bytes,
    upper: Option<Bytes>,
    buffer: VecDeque<Bytes>,
    /// The bucket that the buffer ends in.
    bucket: Option<Bytes>,
    done: bool,
    page: usize,
    page_max: usize,
    read: usize,
    /// What was read so far, in rows.
    spent: u64,
}

impl List {
    fn new(token: Token, from: Option<u32>, to: Option<u32>, page: usize) -> Self {
        Self {
            token,
            lower: to.map_or_else(Bytes::new, |to| OrderKey::first_of(to).0),
            upper: from.map(|from| OrderKey::after(from).0),
            buffer: VecDeque::new(),
            bucket: None,
            done: false,
            page: PAGE_MIN * 4,
            page_max: page.max(PAGE_MIN),
            read: 0,
            spent: 0,
        }
    }

    async fn seek(&mut self, context: &mut Context, at: Bytes) -> Result<Option<Bytes>, StoreError> {
        let at = at.max(self.lower.clone());
        loop {
            while self.buffer.front().is_some_and(|front| *front < at) {
                self.buffer.pop_front();
                self.read += 1;
            }
            if let Some(front) = self.buffer.front() {
                return Ok(Some(front.clone()));
            }
            if self.done || self.upper.as_ref().is_some_and(|upper| at >= *upper) {
                return Ok(None);
            }
            self.fill(context, &at).await?;
        }
    }

    /// Reads the next rows, more at once while all are used, fewer while most are jumped over.
    async fn fill(&mut self, context: &mut Context, at: &Bytes) -> Result<(), StoreError> {
        if self.read > 0 {
            self.page = if self.read * 2 >= self.page { self.page * 2 } else { self.page / 2 };
            self.page = self.page.clamp(PAGE_MIN, self.page_max);
        }
        self.read = 0;
        if !self.token.kind.is_bucketed() {
            self.done = !self.scan(context, None, at).await?;
            return Ok(());
        }
        let wanted = if at.len() >= 4 { Some(year_bucket(OrderKey(at.clone()).year())) } else { None };
        let bucket = match (wanted, &self.bucket) {
            // Never back: what is left of the bucket read last, or the one of the key asked for.
            (Some(wanted), Some(last)) if wanted <= *last => last.clone(),
            (Some(wanted), _) => wanted,
            (None, Some(last)) => last.clone(),
            (None, None) => match context.year_after(None).await? {
                Some(first) => first,
                None => {
                    self.done = true;
                    return Ok(());
                }
            },
        };
        let more = self.scan(context, Some(&bucket), at).await?;
        self.bucket = Some(bucket.clone());
        if !more && self.buffer.is_empty() {
            self.next_bucket(context, &bucket).await?;
        }
        Ok(())
    }

    /// Goes on to the next year's bucket, if that can hold anything within bounds.
    async fn next_bucket(&mut self, context: &mut Context, bucket: &Bytes) -> Result<(), StoreError> {
        let next = context.year_after(Some(bucket)).await?;
        let last = self.upper.as_ref().map(|upper| year_bucket(OrderKey(upper.clone()).year()));
        match next {
            Some(next) if last.is_none_or(|last| next <= last) => {
                self.bucket = Some(next.clone());
                let more = self.scan(context, Some(&next), &Bytes::new()).await?;
                if !more && self.buffer.is_empty() {
                    return Box::pin(self.next_bucket(context, &next)).await;
                }
            }
            _ => self.done = true,
        }
        Ok(())
    }

    /// Reads a page from `at` on; whether there is more after it.
    async fn scan(&mut self, context: &Context, bucket: Option<&Bytes>, at: &Bytes) -> Result<bool, StoreError> {
        let year = bucket.and_then(|bucket| year_of_bucket(bucket)).flatten();
        let pk = self.token.pk(&context.tenant, year);
        let from = at.clone().max(self.lower.clone());
        let range = CkRange { from: (!from.is_empty()).then_some(from), to: self.upper.clone() };
        let page = context.rows.scan(POSTINGS, &pk, &range, self.page).await?;
        self.spent += SEEK_ROWS + page.rows.len() as u64;
        self.buffer.extend(page.rows.into_iter().map(|row| row.ck));
        Ok(page.more)
    }
}

/// The least key after this one.
pub(crate) fn next_key(key: &Bytes) -> Bytes {
    successor(key)
}
