//! A virtqueue in guest memory: another process would put requests in, here the test does, by pwrite.

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use pagewarden_vm_memory::{FaultSafe, WindowMemory};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic};

use super::support::{Guest, PAGE, is_fault};

/// Where the guest's memory begins, and where in it what lies.
const START: u64 = 0x8000_0000;
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Just in front of the second region.
const REQUEST: u64 = 0x3ffc;
const REPLY: u64 = 0x5000;
const SIZE: u16 = 4;

/// A guest whose memory is in two regions, side by side, and its driver.
struct Driver {
    guest: Guest,
    requests: u16,
}

impl Driver {
    fn new() -> Self {
        let guest = Guest::new(&[(START, 4), (START + 4 * PAGE as u64, 4)]);
        guest.file.write_all_at(&[0; 8 * PAGE], 0).unwrap();
        Self { guest, requests: 0 }
    }

    /// Puts a request in: a text at [`REQUEST`], and room for the reply.
    fn ask(&mut self, text: &[u8]) {
        let file = &self.guest.file;
        file.write_all_at(text, REQUEST).unwrap();
        let head = self.requests % 2 * 2;
        for (index, at, flags) in [(head, REQUEST, 1_u16), (head + 1, REPLY, 2)] {
            let len = u32::try_from(text.len()).unwrap();
            let words =
                [&(START + at).to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &(index + 1).to_le_bytes()];
            file.write_all_at(&words.concat(), DESCRIPTORS + 16 * u64::from(index)).unwrap();
        }
        file.write_all_at(&head.to_le_bytes(), AVAILABLE + 4 + 2 * u64::from(self.requests % SIZE)).unwrap();
        self.requests += 1;
        file.write_all_at(&self.requests.to_le_bytes(), AVAILABLE + 2).unwrap();
    }

    /// What the device says it has done last: how often it has, which chain that was, and how much it wrote.
    fn used(&self) -> (u16, u32, u32) {
        let mut count = [0; 2];
        self.guest.file.read_exact_at(&mut count, USED + 2).unwrap();
        let count = u16::from_le_bytes(count);
        let mut element = [0; 8];
        let place = u64::from(count.wrapping_sub(1) % SIZE);
        self.guest.file.read_exact_at(&mut element, USED + 4 + 8 * place).unwrap();
        let [id, len] = [0, 4].map(|at| u32::from_le_bytes(element[at..at + 4].try_into().unwrap()));
        (count, id, len)
    }

    fn reply(&self, len: usize) -> Vec<u8> {
        self.guest.contents()[0x5000..0x5000 + len].to_vec()
    }
}

fn queue() -> Queue {
    let mut queue = Queue::new(SIZE).unwrap();
    let low = |offset: u64| Some(u32::try_from(START + offset).unwrap());
    queue.set_desc_table_address(low(DESCRIPTORS), Some(0));
    queue.set_avail_ring_address(low(AVAILABLE), Some(0));
    queue.set_used_ring_address(low(USED), Some(0));
    queue.set_ready(true);
    queue
}

/// Answers each request with the same text in capitals, through virtio-queue's own reader and writer. How many.
fn answer_by_slices(queue: &mut Queue, memory: &WindowMemory) -> usize {
    let mut answered = 0;
    while let Some(chain) = queue.pop_descriptor_chain(memory) {
        let head = chain.head_index();
        let mut text = Vec::new();
        chain.clone().reader(memory).unwrap().read_to_end(&mut text).unwrap();
        text.make_ascii_uppercase();
        let mut writer = chain.writer(memory).unwrap();
        writer.write_all(&text).unwrap();
        queue.add_used(memory, head, u32::try_from(text.len()).unwrap()).unwrap();
        answered += 1;
    }
    answered
}

#[test]
fn a_device_answers_what_it_finds_in_the_ring() {
    let mut driver = Driver::new();
    let (mut queue, memory) = (queue(), driver.guest.memory.clone());
    assert!(queue.is_valid(&memory));
    assert_eq!(answer_by_slices(&mut queue, &memory), 0);
    for round in 1..10_u16 {
        let text = format!("request number {round}, in two regions");
        driver.ask(text.as_bytes());
        assert_eq!(answer_by_slices(&mut queue, &memory), 1);
        let head = u32::from((round - 1) % 2 * 2);
        assert_eq!(driver.used(), (round, head, u32::try_from(text.len()).unwrap()));
        assert_eq!(driver.reply(text.len()), text.to_ascii_uppercase().into_bytes());
    }
    assert_eq!(driver.guest.manager.provider().lost_pages(), 0);
}

#[test]
fn a_device_that_copies_is_told_of_memory_that_is_gone() {
    let mut driver = Driver::new();
    let (mut queue, space) = (queue(), GuestMemoryAtomic::new(driver.guest.memory.clone()));
    for is_cut in [false, true] {
        driver.ask(b"copied");
        if is_cut {
            driver.guest.file.set_len(0x5000).unwrap();
        }
        let memory = space.memory();
        let mut chains: Vec<_> = queue.iter(memory.clone()).unwrap().collect();
        let mut chain = chains.pop().unwrap();
        assert!(chains.is_empty());
        let (request, reply) = (chain.next().unwrap(), chain.next().unwrap());
        let copies = FaultSafe::new(memory.clone());
        let text = copies.read_obj::<[u8; 6]>(request.addr()).unwrap();
        assert_eq!(&text, b"copied");
        let replied = copies.write_slice(&text, reply.addr());
        assert_eq!(replied.as_ref().is_err_and(is_fault), is_cut, "{replied:?}");
        queue.add_used(&*memory, chain.head_index(), if is_cut { 0 } else { 6 }).unwrap();
    }
    assert_eq!(driver.used(), (2, 2, 0));
    assert_eq!(driver.guest.manager.provider().lost_pages(), 0);
}

#[test]
fn a_ring_that_is_gone_ends_no_process() {
    let mut driver = Driver::new();
    let (mut queue, memory) = (queue(), driver.guest.memory.clone());
    driver.ask(b"text");
    assert_eq!(answer_by_slices(&mut queue, &memory), 1);
    driver.ask(b"more");
    driver.guest.file.set_len(0).unwrap();
    assert_eq!(answer_by_slices(&mut queue, &memory), 0, "an empty ring says that nothing is new");
    assert!(driver.guest.manager.provider().lost_pages() > 0);
    let word = FaultSafe::new(&memory).read_obj::<u32>(GuestAddress(START + REPLY));
    assert!(word.is_err_and(|error| is_fault(&error)));
}
