//! What all memories share: slots, the order of eviction, and the memories by number.

use std::collections::HashMap;
use std::sync::Arc;

use crate::memory::Memory;
use crate::policy::{MEMORIES, Policy};
use crate::slots::Slots;

/// Slots for each one in use, where there is a swap file: a longer round leaves longer runs, and costs 14 bytes of the index for
/// each that stays empty.
const SPREAD: usize = 2;

pub(crate) struct Books {
    pub(crate) slots: Slots,
    /// Slots that nobody has any more, with their content still in the cache.
    pub(crate) emptied: Vec<u32>,
    pub(crate) policy: Policy,
    memories: HashMap<u32, Arc<Memory>>,
    next: u32,
}

impl Books {
    pub(crate) fn new(slots: u32, with_device: bool) -> Books {
        let slots = Slots::new(slots, if with_device { SPREAD } else { 1 });
        Books { slots, emptied: Vec::new(), policy: Policy::default(), memories: HashMap::new(), next: 0 }
    }

    /// One user less of a slot.
    pub(crate) fn release(&mut self, slot: u32) {
        if self.slots.release(slot) {
            self.emptied.push(slot);
        }
    }

    /// A number that no memory has. `None`: there are too many.
    pub(crate) fn free_number(&self) -> Option<u32> {
        (0..MEMORIES)
            .map(|step| (self.next + step) % MEMORIES)
            .find(|number| !self.memories.contains_key(number))
    }

    /// Enters a memory with such a number.
    pub(crate) fn enter(&mut self, memory: Memory) -> Arc<Memory> {
        // Not the same again soon: the queues may still hold candidates of a memory that ended.
        self.next = (memory.number + 1) % MEMORIES;
        let memory = Arc::new(memory);
        self.memories.insert(memory.number, memory.clone());
        memory
    }

    pub(crate) fn memory(&self, number: u32) -> Option<Arc<Memory>> {
        self.memories.get(&number).cloned()
    }

    pub(crate) fn has(&self, memory: &Arc<Memory>) -> bool {
        self.memories.get(&memory.number).is_some_and(|known| Arc::ptr_eq(known, memory))
    }

    pub(crate) fn memories(&self) -> Vec<Arc<Memory>> {
        self.memories.values().cloned().collect()
    }

    pub(crate) fn leave(&mut self, number: u32) {
        self.memories.remove(&number);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.slots.bytes() + self.policy.bytes()
    }
}
