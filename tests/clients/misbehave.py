"""A client that does everything wrong, on purpose and until it is ended.

usage: misbehave.py MANNER HOST PORT USER KEY CERTIFICATE
MANNER is a number; each has another manner (see MANNERS). Whatever the other side does about it is
right, as long as it lets this one come back: a refusal counts, and so does a cut connection. One line
is printed for each time that the manner was carried through to its end, or to where it was cut off.
"""

import os
import random
import socket
import struct
import sys
import time

import paramiko
from paramiko.common import cMSG_CHANNEL_DATA, cMSG_CHANNEL_OPEN, cMSG_CHANNEL_WINDOW_ADJUST, cMSG_IGNORE
from paramiko.message import Message

manner, host, port, user, key, certificate = sys.argv[1:7]
port = int(port)


def connect():
    pkey = paramiko.Ed25519Key.from_private_key_file(key)
    pkey.load_certificate(certificate)
    transport = paramiko.Transport((host, port))
    transport.banner_timeout = 30
    transport.connect(username=user, pkey=pkey)
    return transport


def send(transport, *parts):
    message = Message()
    for part in parts:
        if isinstance(part, int):
            message.add_int(part)
        elif isinstance(part, bytes) and len(part) == 1:
            message.add_byte(part)
        else:
            message.add_string(part)
    transport._send_user_message(message)


def never_reads():
    """Asks for more than it takes, and takes nothing."""
    transport = connect()
    channel = transport.open_session(window_size=1 << 21)
    channel.exec_command("cat /dev/zero")
    time.sleep(10)
    transport.close()


def plays_with_windows():
    """Windows that grow past their bounds, and more data than the other side's window lets in."""
    transport = connect()
    channel = transport.open_session()
    channel.exec_command("sleep 20")
    for _ in range(200):
        send(transport, cMSG_CHANNEL_WINDOW_ADJUST, channel.remote_chanid, 0xFFFFFFFF)
    for _ in range(2000):
        send(transport, cMSG_CHANNEL_DATA, channel.remote_chanid, b"x" * 32000)
    time.sleep(1)
    transport.close()


def sends_nonsense():
    """Well-encrypted packets without sense."""
    transport = connect()
    channel = transport.open_session()
    channel.exec_command("sleep 20")
    for _ in range(100):
        message = Message()
        message.add_bytes(os.urandom(random.randrange(1, 200)))
        transport._send_user_message(message)
    time.sleep(1)
    transport.close()


def opens_without_end():
    """Channels by the thousand, of kinds that are and that are not."""
    transport = connect()
    for at in range(3000):
        kind = random.choice([b"session", b"x11", b"direct-tcpip", b"auth-agent@openssh.com", os.urandom(60)])
        send(transport, cMSG_CHANNEL_OPEN, kind, at, 1 << 21, 1 << 15)
    time.sleep(2)
    transport.close()


def breaks_off():
    """A reset in the middle of bulk."""
    transport = connect()
    channel = transport.open_session(window_size=1 << 21)
    channel.exec_command("cat /dev/zero")
    for _ in range(64):
        channel.recv(1 << 16)
    transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.sock.close()


def speaks_no_ssh():
    """Bytes that are no SSH at all."""
    with socket.create_connection((host, port), timeout=20) as raw:
        raw.sendall(os.urandom(100_000))
        while raw.recv(1 << 16):
            pass


def trickles():
    """A greeting of one byte in a second, over and over."""
    with socket.create_connection((host, port), timeout=20) as raw:
        for byte in b"SSH-2.0-slow\r\n":
            raw.sendall(bytes([byte]))
            time.sleep(1)


def crowds_the_door():
    """Connections that say nothing."""
    held = []
    try:
        for _ in range(60):
            held.append(socket.create_connection((host, port), timeout=20))
        time.sleep(5)
    finally:
        for one in held:
            one.close()


def lies_about_lengths():
    """A greeting, then packets of an impossible length."""
    with socket.create_connection((host, port), timeout=20) as raw:
        raw.sendall(b"SSH-2.0-liar\r\n" + struct.pack(">IB", 0xFFFFFFF0, 4) + os.urandom(4096))
        while raw.recv(1 << 16):
            pass


def ignores_for_ever():
    """As much to be ignored as goes through, and a signal in between."""
    transport = connect()
    channel = transport.open_session()
    channel.exec_command("sleep 30")
    until = time.time() + 5
    while time.time() < until:
        send(transport, cMSG_IGNORE, os.urandom(8192))
    transport.close()


MANNERS = [
    never_reads,
    plays_with_windows,
    sends_nonsense,
    opens_without_end,
    breaks_off,
    speaks_no_ssh,
    trickles,
    crowds_the_door,
    lies_about_lengths,
    ignores_for_ever,
]

mine = MANNERS[int(manner) % len(MANNERS)]
paramiko.util.log_to_file(os.devnull)
while True:
    try:
        mine()
        print(mine.__name__, "to its end", flush=True)
    except (OSError, EOFError, paramiko.SSHException) as error:
        print(mine.__name__, "cut off:", str(error).splitlines()[0] if str(error) else type(error).__name__, flush=True)
    time.sleep(random.uniform(0.2, 1.0))
