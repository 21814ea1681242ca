//! Terminal modes as SSH encodes them (RFC 4254, section 8; RFC 8160 for `IUTF8`).

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices as C, Termios,
    tcgetattr, tcsetattr,
};

/// Applies the modes a client asked for; opcodes that mean nothing here are passed over, as the
/// standard has it.
pub fn apply(terminal: BorrowedFd<'_>, modes: &[(u8, u32)]) -> io::Result<()> {
    let mut state = tcgetattr(terminal)?;
    state.input_flags.insert(InputFlags::IUTF8);
    for (opcode, argument) in modes {
        set(&mut state, *opcode, *argument);
    }
    tcsetattr(terminal, SetArg::TCSANOW, &state)?;
    Ok(())
}

fn set(state: &mut Termios, opcode: u8, argument: u32) {
    let on = argument != 0;
    if let Some(index) = special(opcode) {
        // 255 stands for "disabled", which is 0 here.
        let value = u8::try_from(argument).unwrap_or(u8::MAX);
        state.control_chars[index as usize] = if value == u8::MAX { 0 } else { value };
    } else if let Some(flag) = input(opcode) {
        state.input_flags.set(flag, on);
    } else if let Some(flag) = local(opcode) {
        state.local_flags.set(flag, on);
    } else if let Some(flag) = output(opcode) {
        state.output_flags.set(flag, on);
    } else {
        match opcode {
            90 | 91 if on => {
                state.control_flags.remove(ControlFlags::CSIZE);
                state.control_flags.insert(if opcode == 90 { ControlFlags::CS7 } else { ControlFlags::CS8 });
            }
            92 => state.control_flags.set(ControlFlags::PARENB, on),
            93 => state.control_flags.set(ControlFlags::PARODD, on),
            _ => {}
        }
    }
}

fn special(opcode: u8) -> Option<C> {
    Some(match opcode {
        1 => C::VINTR,
        2 => C::VQUIT,
        3 => C::VERASE,
        4 => C::VKILL,
        5 => C::VEOF,
        6 => C::VEOL,
        7 => C::VEOL2,
        8 => C::VSTART,
        9 => C::VSTOP,
        10 => C::VSUSP,
        12 => C::VREPRINT,
        13 => C::VWERASE,
        14 => C::VLNEXT,
        18 => C::VDISCARD,
        _ => return None,
    })
}

fn input(opcode: u8) -> Option<InputFlags> {
    Some(match opcode {
        30 => InputFlags::IGNPAR,
        31 => InputFlags::PARMRK,
        32 => InputFlags::INPCK,
        33 => InputFlags::ISTRIP,
        34 => InputFlags::INLCR,
        35 => InputFlags::IGNCR,
        36 => InputFlags::ICRNL,
        38 => InputFlags::IXON,
        39 => InputFlags::IXANY,
        40 => InputFlags::IXOFF,
        41 => InputFlags::IMAXBEL,
        42 => InputFlags::IUTF8,
        _ => return None,
    })
}

fn local(opcode: u8) -> Option<LocalFlags> {
    Some(match opcode {
        50 => LocalFlags::ISIG,
        51 => LocalFlags::ICANON,
        53 => LocalFlags::ECHO,
        54 => LocalFlags::ECHOE,
        55 => LocalFlags::ECHOK,
        56 => LocalFlags::ECHONL,
        57 => LocalFlags::NOFLSH,
        58 => LocalFlags::TOSTOP,
        59 => LocalFlags::IEXTEN,
        60 => LocalFlags::ECHOCTL,
        61 => LocalFlags::ECHOKE,
        62 => LocalFlags::PENDIN,
        _ => return None,
    })
}

fn output(opcode: u8) -> Option<OutputFlags> {
    Some(match opcode {
        70 => OutputFlags::OPOST,
        72 => OutputFlags::ONLCR,
        73 => OutputFlags::OCRNL,
        74 => OutputFlags::ONOCR,
        75 => OutputFlags::ONLRET,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_client_can_turn_echo_off_and_move_the_interrupt_key() {
        let pty = nix::pty::openpty(None, None).unwrap();
        apply(pty.slave.as_fd(), &[(53, 0), (1, 7), (6, 255), (200, 9), (72, 0)]).unwrap();
        let state = tcgetattr(&pty.slave).unwrap();
        assert!(!state.local_flags.contains(LocalFlags::ECHO));
        assert!(!state.output_flags.contains(OutputFlags::ONLCR));
        assert_eq!(state.control_chars[C::VINTR as usize], 7);
        assert_eq!(state.control_chars[C::VEOL as usize], 0);
    }
}
