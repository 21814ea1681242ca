"""libssh against a study, by its Python binding: commands, a terminal.

usage: libssh.py HOST PORT USER KEY
The binding cannot join a key and its certificate (libssh 0.11.3), so both come from an agent, as they do
for many who use libssh. Prints one line for each thing that held; anything else is an exception.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time

from ssh import options
from ssh.session import Session

host, port, user, key = sys.argv[1:5]


def held(what):
    print("held:", what, flush=True)


def read_all(channel, stderr=False):
    data = b""
    while True:
        size, piece = channel.read(65536, is_stderr=stderr)
        if size <= 0:
            return data
        data += piece


def connect():
    with tempfile.TemporaryDirectory() as folder:
        socket = os.path.join(folder, "agent")
        with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
            try:
                while not os.path.exists(socket):
                    time.sleep(0.01)
                os.environ["SSH_AUTH_SOCK"] = socket
                subprocess.run(["ssh-add", "-q", key], check=True)
                session = Session()
                session.options_set(options.HOST, host)
                session.options_set_port(int(port))
                session.options_set(options.USER, user)
                session.connect()
                session.userauth_agent(user)
                return session
            finally:
                agent.terminate()


session = connect()
noise = os.urandom(3 << 20)
channel = session.channel_new()
channel.open_session()
channel.request_exec("sha256sum; exit 7")
for at in range(0, len(noise), 32768):
    piece = noise[at : at + 32768]
    while piece:
        piece = piece[channel.write(piece)[1] :]
channel.send_eof()
digest = read_all(channel).split()[0].decode()
assert digest == hashlib.sha256(noise).hexdigest(), digest
assert channel.get_exit_status() == 7
channel.close()
held("libssh: binary input and the exit status")

channel = session.channel_new()
channel.open_session()
channel.request_pty_size("xterm", 100, 40)
channel.request_shell()
channel.change_pty_size(132, 43)
channel.write("stty size; echo 'ゲノム'解析; exit\n".encode())
text = read_all(channel).decode()
assert "43 132" in text and "ゲノム解析" in text, text
channel.close()
held("libssh: a terminal that is resized, with Japanese")
