//! The yardstick: a bare recvmmsg/sendmmsg echo, run as a process of its own.
//!
//! It turns a question round and puts the records behind it that a resolver would answer with, so that packets have the
//! sizes of real ones; it knows nothing and looks up nothing. It is also the upstream where NSD is not installed.
//!
//! Its system calls are its own and the fewest there can be: it blocks in recvmmsg and asks for no control messages.
//! Were it built on [`evenkeel::listen::mmsg`], it would share what it is to measure. Hence `unsafe`, here alone among
//! the benches.

#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};

/// Serves on `address` with `workers` threads, for ever.
pub fn serve(address: SocketAddr, workers: usize) -> io::Result<()> {
    // It ends with the bench, however that ends.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let sockets: Vec<UdpSocket> = (0..workers).map(|_| open(address)).collect::<Result<_, _>>()?;
    thread::scope(|scope| sockets.iter().for_each(|socket| drop(scope.spawn(|| turn_round(socket)))));
    Ok(())
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    let _ = socket.set_recv_buffer_size(4 << 20);
    let _ = socket.set_send_buffer_size(4 << 20);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn turn_round(socket: &UdpSocket) -> ! {
    let records = records();
    // Never freed and reached through these pointers alone, so that headers may keep them.
    let packets: *mut [u8; PACKET_BYTES] = Box::leak(vec![[0; PACKET_BYTES]; BATCH].into_boxed_slice()).as_mut_ptr();
    // SAFETY: plain C data, for which all zero is a value.
    let (mut names, mut vectors, mut headers): (
        [libc::sockaddr_storage; BATCH],
        [libc::iovec; BATCH],
        [libc::mmsghdr; BATCH],
    ) = unsafe { zeroed() };
    let (names, vectors) = (names.as_mut_ptr(), vectors.as_mut_ptr());
    for (n, header) in headers.iter_mut().enumerate() {
        // SAFETY: n is below BATCH, the length of all three.
        unsafe {
            (*vectors.add(n)).iov_base = packets.add(n).cast();
            (*vectors.add(n)).iov_len = PACKET_BYTES;
            header.msg_hdr.msg_name = names.add(n).cast();
            header.msg_hdr.msg_iov = vectors.add(n);
        }
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    }
    loop {
        // SAFETY: the headers name buffers that live as long as this function, with their lengths.
        let n = unsafe {
            let fd = socket.as_raw_fd();
            libc::recvmmsg(fd, headers.as_mut_ptr(), BATCH as _, libc::MSG_WAITFORONE as _, ptr::null_mut())
        };
        let filled = usize::try_from(n).unwrap_or(0);
        for (n, header) in headers[..filled].iter().enumerate() {
            // SAFETY: n is below BATCH, and nothing else borrows a packet.
            unsafe {
                let packet = &mut *packets.add(n);
                (*vectors.add(n)).iov_len = answer(packet, header.msg_len as usize, &records);
            }
        }
        // SAFETY: as above; what is not sent is lost, as UDP may lose it.
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), filled as _, 0) };
        for (n, header) in headers[..filled].iter_mut().enumerate() {
            // SAFETY: n is below BATCH.
            unsafe { (*vectors.add(n)).iov_len = PACKET_BYTES };
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        }
    }
}

/// Makes an answer of a question, in place, and says how long it is. What is no question goes back as it came.
fn answer(packet: &mut [u8; PACKET_BYTES], bytes: usize, records: &[u8]) -> usize {
    let mut end = 12;
    let mut count = 0;
    while let Some(&length @ 1..) = packet.get(end) {
        end += 1 + usize::from(length);
        // `recordsNN` says how many.
        if length == 9
            && let Some(&[tens, ones]) = packet.get(end - 2..end)
        {
            count = usize::from(tens.wrapping_sub(b'0')) * 10 + usize::from(ones.wrapping_sub(b'0'));
        }
    }
    end += 5;
    let tail = bytes.saturating_sub(end);
    let answers = count.min(RECORDS_MAX) * RECORD_BYTES;
    if end + answers + tail > PACKET_BYTES || bytes < end {
        return bytes;
    }
    packet.copy_within(end..bytes, end + answers);
    packet[end..end + answers].copy_from_slice(&records[..answers]);
    packet[2] |= 0x80;
    packet[3] |= 0x80;
    packet[7] = count as u8;
    end + answers + tail
}

fn records() -> Vec<u8> {
    (0..RECORDS_MAX as u8).flat_map(|n| [0xc0, 12, 0, 1, 0, 1, 0, 1, 0x51, 0x80, 0, 4, 192, 0, 2, n]).collect()
}

const BATCH: usize = 64;
const PACKET_BYTES: usize = 2048;
const RECORD_BYTES: usize = 16;
const RECORDS_MAX: usize = 99;
