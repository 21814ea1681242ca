"""paramiko and asyncssh against a study: what people write scripts with.

usage: libraries.py HOST PORT USER KEY CERTIFICATE EXPORTS(0|1)
Prints one line for each thing that held; anything else is an exception.
"""

import asyncio
import hashlib
import io
import os
import sys

import asyncssh
import paramiko

host, port, user, key, certificate, exports = sys.argv[1:7]
port, exports = int(port), exports == "1"
noise = b"\x03" + os.urandom((3 << 20) - 1)


def held(what):
    print("held:", what, flush=True)


def with_paramiko():
    pkey = paramiko.Ed25519Key.from_private_key_file(key)
    pkey.load_certificate(certificate)
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(host, port, user, pkey=pkey, allow_agent=False, look_for_keys=False, timeout=20)
    stdin, stdout, _ = client.exec_command("sha256sum; exit 7", timeout=60)
    stdin.write(noise)
    stdin.channel.shutdown_write()
    digest = stdout.read().split()[0].decode()
    assert digest == hashlib.sha256(noise).hexdigest(), digest
    assert stdout.channel.recv_exit_status() == 7
    held("paramiko: binary input whose first byte is an interrupt, and the exit status")
    channel = client.get_transport().open_session(window_size=1 << 16)
    channel.exec_command("head -c 4000000 /dev/zero")
    read = 0
    while data := channel.recv(1 << 16):
        read += len(data)
    assert read == 4_000_000, read
    held("paramiko: a window of 64 KiB")
    channel = client.get_transport().open_session()
    channel.get_pty(term="xterm", width=80, height=24)
    channel.invoke_shell()
    channel.resize_pty(width=132, height=43)
    channel.sendall("stty size; echo 'ゲノム'解析; exit\n".encode())
    text = b""
    while data := channel.recv(1 << 16):
        text += data
    text = text.decode()
    assert "43 132" in text and "ゲノム解析" in text, text
    held("paramiko: a terminal that is resized, with Japanese")
    sftp = client.open_sftp()
    content = os.urandom(9 << 20)
    sftp.putfo(io.BytesIO(content), "paramiko.bin", confirm=True)
    assert sftp.stat("paramiko.bin").st_size == len(content)
    held("paramiko: put")
    if exports:
        back = io.BytesIO()
        # All requests go out at once here: what stood still elsewhere at a window of 2 MiB.
        sftp.getfo("paramiko.bin", back)
        assert back.getvalue() == content
        with sftp.open("paramiko.bin", "rb") as file:
            for offset in (8_000_000, 5, 4_000_000, 0):
                file.seek(offset)
                assert file.read(1000) == content[offset : offset + 1000]
        held("paramiko: get with everything prefetched, and random access")
    else:
        try:
            sftp.open("paramiko.bin", "rb")
            raise AssertionError("a file was opened for reading")
        except PermissionError:
            held("paramiko: get is refused")
    sftp.close()
    client.close()


async def with_asyncssh():
    options = dict(
        username=user,
        client_keys=[(key, certificate)],
        known_hosts=None,
        agent_path=None,
        config=None,
    )
    async with asyncssh.connect(host, port, **options) as client:
        # An editor's pattern: many channels in one connection, at once.
        ran = await asyncio.gather(*(client.run(f"echo {i}; exit {i}") for i in range(30)))
        assert [(r.stdout, r.exit_status) for r in ran] == [(f"{i}\n", i) for i in range(30)]
        held("asyncssh: thirty channels at once in one connection")
        process = await client.create_process("sleep 100", encoding=None)
        process.terminate()
        await process.wait()
        assert process.exit_signal and process.exit_signal[0] == "TERM", process.exit_signal
        held("asyncssh: a signal reaches the command, and its name comes back")
        async with client.start_sftp_client() as sftp:
            async with sftp.open("async.bin", "wb") as file:
                await file.write(noise)
            assert (await sftp.stat("async.bin")).size == len(noise)
            await sftp.mkdir("folder")
            await sftp.rename("async.bin", "folder/moved.bin")
            assert "moved.bin" in await sftp.listdir("folder")
            await sftp.remove("folder/moved.bin")
            await sftp.rmdir("folder")
            held("asyncssh: put, rename, list, remove")
        try:
            await client.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1)
            raise AssertionError("a remote port was forwarded")
        except asyncssh.ChannelListenError:
            held("asyncssh: a remote port is refused")


with_paramiko()
asyncio.run(with_asyncssh())
