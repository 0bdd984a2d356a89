//! Input of `examples/transfer.rs`, its output, and a reader to whom money is never made or lost (I1).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use onceflow::client::OffsetSpec;
use onceflow::client::consumer::PartitionReader;
use onceflow::client::{ClientError, Transport, wait};
use onceflow::codec::{Codec, Json};
use onceflow::types::{Isolation, Offset, TopicName, TopicPartition};

#[allow(dead_code, reason = "its `main` is for people")]
#[path = "../../../examples/transfer.rs"]
pub(crate) mod example;

use example::Account;

const ACCOUNTS: u64 = 40;

/// The transfer of this number: who gives, who takes, and how much.
fn transfer(number: u64) -> (u64, u64, i64) {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let from = mixed % ACCOUNTS;
    let to = (from + 1 + mixed / ACCOUNTS % (ACCOUNTS - 1)) % ACCOUNTS;
    let amount = 1 + i64::try_from(mixed % 97).unwrap();
    (from, to, amount)
}

/// The line that the job reads.
pub(crate) fn line(number: u64) -> String {
    let (from, to, amount) = transfer(number);
    format!("a{from} a{to} {amount}")
}

/// Computes the accounts after the first `count` transfers.
pub(crate) fn accounts_after(count: u64) -> BTreeMap<String, Account> {
    let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
    for number in 0..count {
        let (from, to, amount) = transfer(number);
        for (account, amount) in [(from, -amount), (to, amount)] {
            let account = accounts.entry(format!("a{account}")).or_default();
            account.balance += amount;
            account.transfers += 1;
        }
    }
    accounts
}

/// When the sum of all balances must be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sum {
    /// Whenever anybody looks: both sides of a transfer are one transaction's.
    Always,
    /// Once all transfers are through: between processes, each side is a transaction's of its own.
    AtRest,
}

/// A `read_committed` reader of the balances, which looks at the log's last stable offset and no further.
pub(crate) struct Ledger {
    transport: Arc<dyn Transport>,
    reader: PartitionReader,
    /// Read, but behind the last cut.
    ahead: VecDeque<(Offset, String, Account)>,
    sum: Sum,
    accounts: BTreeMap<String, Account>,
    changes_count: u64,
    cuts_count: u64,
}

impl Ledger {
    pub(crate) fn new(transport: Arc<dyn Transport>, balances: &str, sum: Sum) -> Self {
        let partition = TopicPartition::new(TopicName::new(balances).unwrap(), 0);
        let isolation = Isolation::ReadCommitted;
        Self {
            reader: PartitionReader::new(
                Arc::clone(&transport),
                partition,
                Offset::ZERO,
                isolation,
            ),
            transport,
            ahead: VecDeque::new(),
            sum,
            accounts: BTreeMap::new(),
            changes_count: 0,
            cuts_count: 0,
        }
    }

    /// Counts the changes of balances seen: two a transfer.
    pub(crate) fn changes_count(&self) -> u64 {
        self.changes_count
    }

    /// Counts different states of the topic, seen with the right sum.
    pub(crate) fn cuts_count(&self) -> u64 {
        self.cuts_count
    }

    /// Reads up to what is the last stable offset now, and takes stock there.
    pub(crate) fn read(&mut self) -> Result<(), ClientError> {
        let partition = self.reader.partition().clone();
        let spec = OffsetSpec::Latest;
        let listed = self
            .transport
            .list_offset(&partition, spec, Isolation::ReadCommitted);
        let end = wait(listed)?.map_or(Offset::ZERO, |end| end.offset);
        while self.reader.position() < end {
            for batch in wait(self.reader.fetch(Duration::ZERO))? {
                for record in batch?.iter() {
                    let record = record.unwrap();
                    let key = std::str::from_utf8(record.key.unwrap()).unwrap();
                    let account = decode(record.value.unwrap());
                    self.ahead
                        .push_back((record.offset, key.to_owned(), account));
                }
            }
        }
        self.take_stock(end);
        Ok(())
    }

    fn take_stock(&mut self, end: Offset) {
        let before = self.changes_count;
        while let Some((_, key, account)) = self.ahead.pop_front_if(|(offset, ..)| *offset < end) {
            let known = self.accounts.entry(key.clone()).or_default();
            let follows = known.transfers + 1;
            assert_eq!(account.transfers, follows, "{key}: a gap or a repeat");
            *known = account;
            self.changes_count += 1;
        }
        if self.changes_count == before {
            return;
        }
        let sum: i64 = self.accounts.values().map(|account| account.balance).sum();
        assert!(
            self.sum == Sum::AtRest || sum == 0,
            "below offset {end} the balances sum up to {sum}"
        );
        self.cuts_count += 1;
    }

    /// Everything was read: the accounts are those of the model.
    pub(crate) fn assert_after(&self, count: u64) {
        assert_eq!(self.changes_count, 2 * count);
        assert_eq!(self.accounts, accounts_after(count));
    }
}

fn decode(json: &[u8]) -> Account {
    <Json as Codec<Account>>::decode(&Json, json)
        .unwrap()
        .into_owned()
}
