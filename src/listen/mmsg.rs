//! Many datagrams a system call: recvmmsg and sendmmsg over fixed buffers.
//!
//! A [`Batch`] has [`BATCH`] slots, each with room for one question and one reply. [`Batch::receive`] fills slots from
//! a socket, the worker reads [`Batch::question`] and says [`Batch::set_reply`], [`Batch::send`] gives the replies out
//! by the same socket. [`send_many`] is for replies that come later.
//!
//! - Nothing waits: both calls are MSG_DONTWAIT, and a full send buffer is waited for `SEND_RETRIES` times 1 ms at
//!   most; then what is left of the batch is lost, as UDP may lose it.
//! - Nothing is allocated after [`Batch::new`].
//! - A reply leaves from the address that was asked, message by message, where the socket tells it
//!   ([`tell_destination`]): else a host with two addresses answers from the wrong one and the client drops it.
//! - A datagram that was cut (MSG_TRUNC), or that came from port 0, is no question: its slot stays silent.
//! - A message that cannot be sent (a filter, no route) is skipped; those behind it go out.
//!
//! io_uring with a multishot receive was tried beside this in a bare echo, flooded by dnsperf on another core: CPU a
//! packet 0.99 times (medians of three rounds, 5,123 and 5,186 ns), with sendmmsg for the replies 1.00 times; at half
//! load 1.28 and 0.94 times, in two rounds. What costs is a packet's way through the kernel, and not the call. Hosts
//! that forbid io_uring would need this file all the same.
//!
//! This is the one file of the listeners with `unsafe`. Headers are built anew for each call, from buffers that the
//! call borrows, so that no pointer outlives the borrow that it was made from.

#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::limits::{BATCH, UDP_PAYLOAD_MAX, UDP_QUERY_BYTES_MAX};

/// Slots that a read offers at least.
const OFFER_MIN: usize = 8;
const NO_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// Slots for questions that were read together, and for their replies.
pub struct Batch {
    queries: Box<[[u8; UDP_QUERY_BYTES_MAX]]>,
    replies: Box<[[u8; UDP_PAYLOAD_MAX]]>,
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    slots: Box<[Slot]>,
    /// Slots in use: those from 0 to here.
    filled: usize,
    /// Slots that the last read offered to the kernel, and that the next one will.
    offered: usize,
    offer: usize,
    drops: Option<u32>,
}

/// One question, where it came from, and whom it asked.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'b> {
    /// The packet.
    pub bytes: &'b [u8],
    /// Who sent it.
    pub peer: SocketAddr,
    /// The address that was asked, where the socket tells it and it is one that can be answered from.
    pub source: Option<Source>,
}

/// An address of this machine to answer from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address; IPv4-mapped where an IPv6 socket said so.
    pub address: IpAddr,
    /// Index of the interface, for link-local addresses alone: anywhere else routing chooses it. 0 is none.
    pub interface: u32,
}

/// What became of a batch's replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Replies that the kernel took.
    pub sent: usize,
    /// Replies that it did not.
    pub lost: usize,
}

impl Batch {
    /// Buffers for [`BATCH`] datagrams, about 220 KiB of which only what is used is touched.
    pub fn new() -> Self {
        // SAFETY: a sockaddr_storage is plain C data, for which all zero is a value.
        let name: libc::sockaddr_storage = unsafe { zeroed() };
        Self {
            queries: vec![[0; UDP_QUERY_BYTES_MAX]; BATCH].into_boxed_slice(),
            replies: vec![[0; UDP_PAYLOAD_MAX]; BATCH].into_boxed_slice(),
            names: vec![name; BATCH].into_boxed_slice(),
            controls: vec![Control([0; CONTROL_BYTES]); BATCH].into_boxed_slice(),
            slots: vec![Slot::default(); BATCH].into_boxed_slice(),
            filled: 0,
            offered: BATCH,
            offer: BATCH,
            drops: None,
        }
    }

    /// Reads what `socket` has and says how many slots that filled; 0 if there is nothing. What was in the slots before
    /// is gone. [`BATCH`] datagrams at most, and at most twice as many as came the last time: a header costs time to
    /// build whether a datagram comes for it or not.
    ///
    /// # Errors
    ///
    /// What the kernel says of the socket; never "would block" or "interrupted".
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.filled = 0;
        self.drops = None;
        self.offered = self.offer;
        let (mut headers, mut vectors) = (Headers::new(), [NO_VECTOR; BATCH]);
        let buffers = self.queries.iter_mut().zip(self.names.iter_mut()).zip(self.controls.iter_mut());
        for (vector, ((query, name), control)) in vectors.iter_mut().zip(buffers).take(self.offered) {
            *vector = libc::iovec { iov_base: query.as_mut_ptr().cast(), iov_len: query.len() };
            let header = headers.add();
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        let filled = loop {
            let built = headers.from(0);
            // SAFETY: `built` are headers each of whose pointers was made above from a buffer of the length given
            // beside it; the buffers are borrowed mutably by this function and not touched until it returns. The
            // time-out may be null.
            let n = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    built.as_mut_ptr(),
                    built.len() as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                    ptr::null_mut(),
                )
            };
            // Negative is the only value that does not convert.
            match usize::try_from(n) {
                Ok(n) => break n.min(self.offered),
                Err(_) => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => {}
                    e if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                    e => return Err(e),
                },
            }
        };
        for (slot, header) in headers.from(0).iter().enumerate().take(filled) {
            // SAFETY: the kernel has filled this header: its control pointer and length name its control buffer.
            let told = unsafe { told(&header.msg_hdr) };
            self.drops = self.drops.max(told.drops);
            let name_bytes = header.msg_hdr.msg_namelen;
            self.slots[slot] = Slot {
                peer: peer(&self.names[slot], name_bytes),
                source: told.source,
                name_bytes,
                query_bytes: (header.msg_len as usize).min(UDP_QUERY_BYTES_MAX),
                cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                reply_bytes: 0,
            };
        }
        self.filled = filled;
        self.offer = (2 * filled).clamp(OFFER_MIN, BATCH);
        Ok(filled)
    }

    /// Did the last read fill all slots that it might? Then there may be more.
    pub fn is_full(&self) -> bool {
        self.filled == self.offered
    }

    /// The packet of the question in `slot`, where there is one that may be answered.
    pub fn packet(&self, slot: usize) -> Option<&[u8]> {
        let at = self.slots.get(slot).filter(|at| slot < self.filled && !at.cut && at.peer.is_some())?;
        Some(&self.queries[slot][..at.query_bytes])
    }

    /// The question in `slot`, and the room for its reply. `None` where there is none that may be answered.
    pub fn question(&mut self, slot: usize) -> Option<(Datagram<'_>, &mut [u8])> {
        let at = self.slots.get(slot).filter(|at| slot < self.filled && !at.cut)?;
        let bytes = &self.queries[slot][..at.query_bytes];
        Some((Datagram { bytes, peer: at.peer?, source: at.source }, &mut self.replies[slot]))
    }

    /// Was the datagram in `slot` longer than a question may be?
    pub fn is_cut(&self, slot: usize) -> bool {
        slot < self.filled && self.slots[slot].cut
    }

    /// The first `bytes` of the room for the reply are the reply; 0 is none.
    pub fn set_reply(&mut self, slot: usize, bytes: usize) {
        self.slots[slot].reply_bytes = bytes.min(UDP_PAYLOAD_MAX);
    }

    /// Datagrams that the kernel dropped because the socket's buffer was full, since the socket was opened, as the last
    /// batch told. `None` where it told nothing: the socket is not asked to ([`tell_drops`]), or there are none.
    pub fn drops(&self) -> Option<u32> {
        self.drops
    }

    /// Gives out the replies that were set, each to the one who asked. They are gone then, sent or lost.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> Sent {
        let (mut headers, mut vectors) = (Headers::new(), [NO_VECTOR; BATCH]);
        let buffers = self.replies.iter_mut().zip(self.names.iter_mut()).zip(self.controls.iter_mut());
        let mut replies = self.slots[..self.filled]
            .iter_mut()
            .zip(buffers)
            .filter(|(slot, _)| slot.reply_bytes > 0 && slot.peer.is_some());
        // Vectors first: zip takes from its left side before it finds the right one empty.
        for vector in &mut vectors {
            let Some((slot, ((reply, name), control))) = replies.next() else { break };
            *vector = libc::iovec { iov_base: reply.as_mut_ptr().cast(), iov_len: slot.reply_bytes };
            let header = headers.add();
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = slot.name_bytes;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            if let Some(source) = slot.source {
                leave_from(header, control, source);
            }
            slot.reply_bytes = 0;
        }
        // SAFETY: each header was built above from buffers that this function borrows to its end.
        unsafe { give_out(socket, &mut headers, || wait_for_room(socket)) }
    }
}

/// Sends what `headers` name.
///
/// # Safety
///
/// Their pointers are null or lead to what lives until this returns, of the length given beside each.
unsafe fn give_out(socket: BorrowedFd<'_>, headers: &mut Headers, wait: impl FnMut()) -> Sent {
    let count = headers.count;
    let transmit_from = |first: usize| {
        let rest = headers.from(first);
        // SAFETY: the caller's promise; the kernel reads through the headers and writes `msg_len` alone.
        let n = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                rest.as_mut_ptr(),
                rest.len() as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    };
    transmit(count, transmit_from, wait)
}

/// Headers of messages, built one by one: what is not used is not touched.
struct Headers {
    headers: [MaybeUninit<libc::mmsghdr>; BATCH],
    count: usize,
}

impl Headers {
    fn new() -> Self {
        Self { headers: [const { MaybeUninit::uninit() }; BATCH], count: 0 }
    }

    /// One more, without anything in it.
    fn add(&mut self) -> &mut libc::msghdr {
        // SAFETY: plain C data, for which all zero (null pointers, no length) is a value.
        let empty: libc::mmsghdr = unsafe { zeroed() };
        let header = self.headers[self.count].write(empty);
        self.count += 1;
        &mut header.msg_hdr
    }

    /// Those that were added, from one on.
    fn from(&mut self, first: usize) -> &mut [libc::mmsghdr] {
        let added = &mut self.headers[first..self.count];
        // SAFETY: `add` has written each of the first `count`.
        unsafe { added.assume_init_mut() }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// A datagram that is to leave.
#[derive(Clone, Copy, Debug)]
pub struct Leaving<'b> {
    /// The packet.
    pub bytes: &'b [u8],
    /// Whom it is for.
    pub peer: SocketAddr,
    /// The address to leave from, where it matters.
    pub source: Option<Source>,
}

/// Sends the first [`BATCH`] of `datagrams` in one call. Never waits: what the kernel has no room for is lost.
pub fn send_many<'b>(socket: BorrowedFd<'_>, datagrams: impl IntoIterator<Item = Leaving<'b>>) -> Sent {
    let (mut headers, mut vectors) = (Headers::new(), [NO_VECTOR; BATCH]);
    let (mut names, mut controls) = ([const { None }; BATCH], [Control([0; CONTROL_BYTES]); BATCH]);
    let room = vectors.iter_mut().zip(names.iter_mut().zip(controls.iter_mut()));
    for ((vector, (name, control)), leaving) in room.zip(datagrams) {
        let name = name.insert(socket2::SockAddr::from(leaving.peer));
        *vector = libc::iovec { iov_base: leaving.bytes.as_ptr().cast_mut().cast(), iov_len: leaving.bytes.len() };
        let header = headers.add();
        header.msg_name = name.as_ptr().cast_mut().cast();
        header.msg_namelen = name.len();
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        if let Some(source) = leaving.source {
            leave_from(header, control, source);
        }
    }
    // SAFETY: the headers point into arrays that live to the end of this function, and into bytes that the caller
    // lends for longer; sendmmsg only reads through them.
    unsafe { give_out(socket, &mut headers, || {}) }
}

/// Asks the kernel to tell, with each datagram of a socket bound to an address like `bound`, whom it was sent to.
///
/// # Errors
///
/// What the kernel says.
pub fn tell_destination(socket: BorrowedFd<'_>, bound: IpAddr) -> io::Result<()> {
    match bound {
        IpAddr::V4(_) => switch_on(socket, libc::IPPROTO_IP, libc::IP_PKTINFO),
        IpAddr::V6(_) => switch_on(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    }
}

/// Asks the kernel to tell with a datagram how many it has dropped before.
///
/// # Errors
///
/// What the kernel says.
pub fn tell_drops(socket: BorrowedFd<'_>) -> io::Result<()> {
    switch_on(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL)
}

fn switch_on(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value is an int that lives through the call, and its size is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends messages 0 to `count` by `call`, which takes the first that is left and says how many went out.
///
/// An error is about the first message of a call alone (sendmmsg(2)): it is skipped.
fn transmit(count: usize, mut call: impl FnMut(usize) -> io::Result<usize>, mut wait: impl FnMut()) -> Sent {
    let (mut at, mut lost, mut retries) = (0, 0, 0);
    while at < count {
        match call(at) {
            // sendmmsg never says 0 for a non-empty list; were it to, the loop must end all the same.
            Ok(0) => (at, lost) = (at + 1, lost + 1),
            Ok(n) => at += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if retries == SEND_RETRIES {
                    lost += count - at;
                    break;
                }
                retries += 1;
                wait();
            }
            Err(_) => (at, lost) = (at + 1, lost + 1),
        }
    }
    Sent { sent: count - lost, lost }
}

/// Waits 1 ms at most for room in the socket's send buffer.
fn wait_for_room(socket: BorrowedFd<'_>) {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
    // Whether it came or not, the next try finds out.
    let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
}

/// What was read into a slot, and what goes out of it.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// `None` where nobody can be answered.
    peer: Option<SocketAddr>,
    source: Option<Source>,
    name_bytes: libc::socklen_t,
    query_bytes: usize,
    cut: bool,
    reply_bytes: usize,
}

/// Room for control messages, aligned as their headers must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// What the control messages of a datagram tell.
#[derive(Default)]
struct Told {
    source: Option<Source>,
    drops: Option<u32>,
}

/// Reads the control messages of a header.
///
/// # Safety
///
/// `msg_control` is aligned for a cmsghdr, and `msg_controllen` bytes from it are initialized.
unsafe fn told(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: the caller's promise is all that CMSG_FIRSTHDR asks.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give a header that lies whole within the buffer, or null.
        let (level, kind, bytes) = unsafe { ((*at).cmsg_level, (*at).cmsg_type, (*at).cmsg_len as usize) };
        // SAFETY: the data begins right behind that header; reads below go no further than `cmsg_len` says.
        let data = unsafe { libc::CMSG_DATA(at) };
        // SAFETY: pure arithmetic.
        let holds = |size: usize| bytes >= unsafe { libc::CMSG_LEN(size as libc::c_uint) } as usize;
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if holds(size_of::<libc::in_pktinfo>()) => {
                // SAFETY: `holds` says that this many bytes are there; the read needs no alignment.
                let info: libc::in_pktinfo = unsafe { ptr::read_unaligned(data.cast()) };
                // Where the datagram went to a broadcast address, this is the interface's own.
                let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                told.source = answerable(IpAddr::V4(address), 0);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if holds(size_of::<libc::in6_pktinfo>()) => {
                // SAFETY: as above.
                let info: libc::in6_pktinfo = unsafe { ptr::read_unaligned(data.cast()) };
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let interface = if address.is_unicast_link_local() { info.ipi6_ifindex as u32 } else { 0 };
                told.source = answerable(IpAddr::V6(address), interface);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) if holds(size_of::<u32>()) => {
                // SAFETY: as above.
                told.drops = Some(unsafe { ptr::read_unaligned(data.cast()) });
            }
            _ => {}
        }
        // SAFETY: `at` is a header of this buffer.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
    told
}

/// One cannot answer from a group's address, nor from none; the kernel chooses there.
fn answerable(address: IpAddr, interface: u32) -> Option<Source> {
    (!address.is_multicast() && !address.is_unspecified()).then_some(Source { address, interface })
}

/// Adds the control message to `header` that makes it leave from `source`; `control` holds it.
fn leave_from(header: &mut libc::msghdr, control: &mut Control, source: Source) {
    match source.address {
        IpAddr::V4(address) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: source.interface as libc::c_int,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            control_message(header, control, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        IpAddr::V6(address) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                ipi6_ifindex: source.interface as _,
            };
            control_message(header, control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
    }
}

fn control_message<T: Copy>(
    header: &mut libc::msghdr,
    control: &mut Control,
    level: libc::c_int,
    kind: libc::c_int,
    data: T,
) {
    const { assert!(size_of::<libc::cmsghdr>() + size_of::<T>() + 8 <= CONTROL_BYTES) };
    // SAFETY: pure arithmetic.
    let (space, length) =
        unsafe { (libc::CMSG_SPACE(size_of::<T>() as libc::c_uint), libc::CMSG_LEN(size_of::<T>() as libc::c_uint)) };
    *control = Control([0; CONTROL_BYTES]);
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = space as _;
    // SAFETY: the buffer is aligned, zeroed, and by the assertion above larger than `space`: the first header is not
    // null and there is room for a `T` behind it. The write needs no alignment.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(header);
        (*first).cmsg_level = level;
        (*first).cmsg_type = kind;
        (*first).cmsg_len = length as _;
        ptr::write_unaligned(libc::CMSG_DATA(first).cast(), data);
    }
}

/// The address in `name`, of which the kernel wrote `bytes`; `None` for another family, or port 0.
fn peer(name: &libc::sockaddr_storage, bytes: libc::socklen_t) -> Option<SocketAddr> {
    let peer = match libc::c_int::from(name.ss_family) {
        libc::AF_INET if bytes as usize >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: the family says that this is a sockaddr_in; a sockaddr_storage is larger and aligned for it.
            let v4 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            SocketAddr::V4(SocketAddrV4::new(address, u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 if bytes as usize >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above, for a sockaddr_in6.
            let v6 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            SocketAddr::V6(SocketAddrV6::new(address, port, v6.sin6_flowinfo, v6.sin6_scope_id))
        }
        _ => return None,
    };
    (peer.port() != 0).then_some(peer)
}

/// Waits of 1 ms for room in the send buffer, for one batch.
const SEND_RETRIES: u32 = 3;

/// Room for one in6_pktinfo (20 bytes) and one drop count (4), each with a header of 16, and to spare.
const CONTROL_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_reply_leaves_from_the_address_that_was_asked() {
        for (bind, ask) in [
            ("0.0.0.0:0", "127.0.0.5"),
            ("0.0.0.0:0", "127.0.0.1"),
            ("[::]:0", "::1"),
            ("127.0.0.7:0", "127.0.0.7"),
            ("[::1]:0", "::1"),
        ] {
            let server = server(bind);
            let ask = SocketAddr::new(ask.parse().unwrap(), port(&server));
            let client = client(ask);
            client.send_to(b"question", ask).unwrap();
            let mut batch = Batch::new();
            assert_eq!(echo(&mut batch, &server), Sent { sent: 1, lost: 0 }, "{bind} {ask}");
            assert_eq!(reply(&client), (b"question".to_vec(), ask), "{bind} {ask}");
        }
    }

    #[test]
    fn a_late_reply_leaves_from_the_address_that_was_asked() {
        for (bind, ask) in [("0.0.0.0:0", "127.0.0.5"), ("[::]:0", "::1")] {
            let server = server(bind);
            let ask = SocketAddr::new(ask.parse().unwrap(), port(&server));
            let client = client(ask);
            client.send_to(b"question", ask).unwrap();
            let mut batch = Batch::new();
            wait_for_datagrams(&server);
            assert_eq!(batch.receive(server.as_fd()).unwrap(), 1);
            let (question, _) = batch.question(0).unwrap();
            assert_eq!(question.source, Some(Source { address: ask.ip(), interface: 0 }));
            let many: Vec<[u8; 2]> = (0..BATCH as u8 + 6).map(|n| [b'm', n]).collect();
            let leaving = many.iter().map(|bytes| Leaving { bytes, peer: question.peer, source: question.source });
            assert_eq!(send_many(server.as_fd(), leaving), Sent { sent: BATCH, lost: 0 });
            many.iter().take(BATCH).for_each(|bytes| assert_eq!(reply(&client), (bytes.to_vec(), ask)));
            assert_eq!(send_many(server.as_fd(), []), Sent::default());
        }
    }

    #[test]
    fn what_a_read_offers_follows_what_came() {
        let server = server("127.0.0.1:0");
        let ask = SocketAddr::from(([127, 0, 0, 1], port(&server)));
        let client = client(ask);
        let mut batch = Batch::new();
        client.send_to(b"alone", ask).unwrap();
        wait_for_datagrams(&server);
        assert_eq!((batch.receive(server.as_fd()).unwrap(), batch.is_full()), (1, false));
        for _ in 0..200 {
            client.send_to(b"one of many", ask).unwrap();
        }
        let read = std::iter::from_fn(|| Some((batch.receive(server.as_fd()).unwrap(), batch.is_full())));
        let read: Vec<_> = read.take(6).collect();
        assert_eq!(read, [(8, true), (16, true), (32, true), (64, true), (64, true), (16, false)]);
    }

    #[test]
    fn two_hundred_datagrams_at_once_are_all_answered_each_to_its_own() {
        let server = server("0.0.0.0:0");
        let clients: Vec<UdpSocket> = (0..4).map(|_| client("127.0.0.1:1".parse().unwrap())).collect();
        for n in 0..200u8 {
            let ask = SocketAddr::from(([127, 0, 0, 1 + n % 7], port(&server)));
            clients[usize::from(n) % 4].send_to(&[n, 1, 2], ask).unwrap();
        }
        let mut batch = Batch::new();
        let mut sent = 0;
        while sent < 200 {
            sent += echo(&mut batch, &server).sent;
        }
        for n in 0..200u8 {
            let from = SocketAddr::from(([127, 0, 0, 1 + n % 7], port(&server)));
            assert_eq!(reply(&clients[usize::from(n) % 4]), (vec![n, 1, 2], from));
        }
        assert_eq!(batch.receive(server.as_fd()).unwrap(), 0);
    }

    #[test]
    fn an_empty_datagram_is_an_empty_question_and_the_longest_one_is_whole() {
        let server = server("127.0.0.1:0");
        let client = client(server.local_addr().unwrap());
        for bytes in [0, 1, UDP_QUERY_BYTES_MAX] {
            client.send_to(&vec![7; bytes], server.local_addr().unwrap()).unwrap();
            wait_for_datagrams(&server);
            let mut batch = Batch::new();
            assert_eq!(batch.receive(server.as_fd()).unwrap(), 1);
            assert!(!batch.is_cut(0));
            assert_eq!(batch.question(0).unwrap().0.bytes.len(), bytes);
            assert!(batch.question(1).is_none());
        }
    }

    #[test]
    fn a_datagram_that_is_too_long_is_no_question_and_those_beside_it_are() {
        let server = server("127.0.0.1:0");
        let at = server.local_addr().unwrap();
        let client = client(at);
        for bytes in [3, UDP_QUERY_BYTES_MAX + 1, 60_000, 4] {
            client.send_to(&vec![7; bytes], at).unwrap();
        }
        wait_for_datagrams(&server);
        let mut batch = Batch::new();
        assert_eq!(batch.receive(server.as_fd()).unwrap(), 4);
        let lengths: Vec<_> = (0..4).map(|n| batch.question(n).map(|(q, _)| q.bytes.len())).collect();
        assert_eq!(lengths, [Some(3), None, None, Some(4)]);
        assert_eq!([0, 1, 2, 3].map(|n| batch.is_cut(n)), [false, true, true, false]);
    }

    #[test]
    fn slots_without_a_reply_send_nothing_and_nothing_goes_out_twice() {
        let server = server("127.0.0.1:0");
        let at = server.local_addr().unwrap();
        let client = client(at);
        for n in 0..5 {
            client.send_to(&[n], at).unwrap();
        }
        wait_for_datagrams(&server);
        let mut batch = Batch::new();
        assert_eq!(batch.receive(server.as_fd()).unwrap(), 5);
        for slot in [1, 4] {
            let (question, out) = batch.question(slot).unwrap();
            out[0] = question.bytes[0];
            batch.set_reply(slot, 1);
        }
        assert_eq!(batch.send(server.as_fd()), Sent { sent: 2, lost: 0 });
        assert_eq!(batch.send(server.as_fd()), Sent::default());
        assert_eq!([reply(&client).0, reply(&client).0], [[1], [4]]);
        assert_eq!(nothing_comes(&client), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_reply_that_cannot_be_sent_does_not_hold_those_behind_it() {
        let server = server("0.0.0.0:0");
        let at = SocketAddr::from(([127, 0, 0, 1], port(&server)));
        let client = client(at);
        for n in 0..4 {
            client.send_to(&[n], at).unwrap();
        }
        wait_for_datagrams(&server);
        let mut batch = Batch::new();
        assert_eq!(batch.receive(server.as_fd()).unwrap(), 4);
        for slot in 0..4 {
            let (question, out) = batch.question(slot).unwrap();
            out[0] = question.bytes[0];
            batch.set_reply(slot, 1);
        }
        // An address that this machine does not have (RFC 5737).
        batch.slots[1].source = Some(Source { address: "192.0.2.1".parse().unwrap(), interface: 0 });
        assert_eq!(batch.send(server.as_fd()), Sent { sent: 3, lost: 1 });
        assert_eq!([0; 3].map(|_| reply(&client).0), [[0], [2], [3]]);
    }

    #[test]
    fn transmitting_ends_whatever_the_kernel_says() {
        use io::ErrorKind::{Interrupted, PermissionDenied, WouldBlock};
        type Script = &'static [Result<usize, io::ErrorKind>];
        let table: &[(&str, usize, Script, Sent, usize)] = &[
            ("nothing to send", 0, &[], Sent { sent: 0, lost: 0 }, 0),
            ("all at once", 5, &[Ok(5)], Sent { sent: 5, lost: 0 }, 0),
            ("in parts", 5, &[Ok(2), Ok(3)], Sent { sent: 5, lost: 0 }, 0),
            ("one is refused", 5, &[Ok(2), Err(PermissionDenied), Ok(2)], Sent { sent: 4, lost: 1 }, 0),
            ("interrupted", 2, &[Err(Interrupted), Err(Interrupted), Ok(2)], Sent { sent: 2, lost: 0 }, 0),
            ("full for a while", 3, &[Err(WouldBlock), Ok(1), Err(WouldBlock), Ok(2)], Sent { sent: 3, lost: 0 }, 2),
            (
                "three waits are not enough, and there is no fourth",
                3,
                &[Ok(1), Err(WouldBlock), Err(WouldBlock), Err(WouldBlock), Err(WouldBlock)],
                Sent { sent: 1, lost: 2 },
                3,
            ),
            ("a kernel that says 0", 2, &[Ok(0), Ok(1)], Sent { sent: 1, lost: 1 }, 0),
        ];
        for (name, count, script, want, waits_wanted) in table {
            let (mut script, mut waits) = (script.iter(), 0);
            let call = |_| script.next().expect(name).map_err(io::Error::from);
            assert_eq!((transmit(*count, call, || waits += 1), waits), (*want, *waits_wanted), "{name}");
            assert!(script.next().is_none(), "{name}");
        }
    }

    #[test]
    fn datagrams_that_the_kernel_dropped_are_counted() {
        let server = server("127.0.0.1:0");
        tell_drops(server.as_fd()).unwrap();
        socket2::SockRef::from(&server).set_recv_buffer_size(4096).unwrap();
        let at = server.local_addr().unwrap();
        let client = client(at);
        let mut batch = Batch::new();
        client.send_to(b"first", at).unwrap();
        wait_for_datagrams(&server);
        assert_eq!((batch.receive(server.as_fd()).unwrap(), batch.drops()), (1, None));
        for _ in 0..200 {
            client.send_to(&[0; 1000], at).unwrap();
        }
        let mut read = 0;
        wait_for_datagrams(&server);
        loop {
            match batch.receive(server.as_fd()).unwrap() {
                0 => break,
                n => read += n,
            }
        }
        assert!(read < 200, "the buffer was not full");
        // The count comes with the first datagram behind a drop.
        client.send_to(b"last", at).unwrap();
        wait_for_datagrams(&server);
        assert_eq!(batch.receive(server.as_fd()).unwrap(), 1);
        assert_eq!(batch.drops(), Some(200 - read as u32));
    }

    /// Answers all that is there with the question itself.
    fn echo(batch: &mut Batch, server: &UdpSocket) -> Sent {
        wait_for_datagrams(server);
        for slot in 0..batch.receive(server.as_fd()).unwrap() {
            let (question, out) = batch.question(slot).unwrap();
            let bytes = question.bytes.len();
            out[..bytes].copy_from_slice(question.bytes);
            batch.set_reply(slot, bytes);
        }
        batch.send(server.as_fd())
    }

    fn server(bind: &str) -> UdpSocket {
        let socket = UdpSocket::bind(bind).unwrap();
        tell_destination(socket.as_fd(), socket.local_addr().unwrap().ip()).unwrap();
        socket
    }

    fn client(peer: SocketAddr) -> UdpSocket {
        let client = UdpSocket::bind(if peer.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client
    }

    fn reply(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2048];
        let (bytes, from) = client.recv_from(&mut buffer).unwrap();
        (buffer[..bytes].to_vec(), from)
    }

    fn nothing_comes(client: &UdpSocket) -> io::ErrorKind {
        client.set_nonblocking(true).unwrap();
        client.recv_from(&mut [0; 16]).unwrap_err().kind()
    }

    fn port(socket: &UdpSocket) -> u16 {
        socket.local_addr().unwrap().port()
    }

    /// Loopback hands a datagram over within the sending call nearly always; where not, this waits for it.
    fn wait_for_datagrams(socket: &UdpSocket) {
        let mut fds = [PollFd::new(socket, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })).unwrap();
    }
}
