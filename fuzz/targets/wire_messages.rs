//! Messages of every direction: what is understood is written again as the same bytes.
#![no_main]

use std::collections::VecDeque;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wire::machine::{Inbound, Outbound, Script};
use wire::message::{
    AgentControl, BrokerControl, DepositInput, DepositOutput, FetchInput, FetchOutput, Order, SessionInput,
    SessionOutput,
};

fn hear<M: Script + Clone + PartialEq + std::fmt::Debug>(data: &[u8]) {
    let mut inbound = Inbound::<M>::new();
    let mut outbound = Outbound::<M>::new();
    inbound.push(Bytes::copy_from_slice(data));
    while let Ok(Some(message)) = inbound.next_message() {
        let mut written = VecDeque::new();
        outbound.say(message.clone(), &mut written).expect("what was heard may be said");
        let written: Vec<u8> = written.iter().flatten().copied().collect();
        let mut again = wire::frame::Decoder::default();
        again.push(written.into());
        let frame = again.next_frame().expect("own frame").expect("whole");
        assert_eq!(M::decode(frame).expect("own message"), Some(message));
    }
    let _ = inbound.end();
}

fuzz_target!(|data: &[u8]| {
    let Some((&direction, data)) = data.split_first() else { return };
    match direction % 9 {
        0 => hear::<AgentControl>(data),
        1 => hear::<BrokerControl>(data),
        2 => hear::<Order>(data),
        3 => hear::<SessionInput>(data),
        4 => hear::<SessionOutput>(data),
        5 => hear::<DepositInput>(data),
        6 => hear::<DepositOutput>(data),
        7 => hear::<FetchInput>(data),
        _ => hear::<FetchOutput>(data),
    }
});
