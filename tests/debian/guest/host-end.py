"""The host's end of the agent's port, as QEMU makes it: a unix socket, one client at a time, and what it says goes through the port.

host-end.py DEVICE SOCKET. DEVICE is the other port, to which the emulator connects the agent's.
"""
import os, select, socket, sys

port = os.open(sys.argv[1], os.O_RDWR)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen(1)
client = None


def through(write, data):
    while data:
        data = data[write(data):]


while True:
    readable = select.select([port, client or listener], [], [])[0]
    if listener in readable:
        client = listener.accept()[0]
    if port in readable:
        data = os.read(port, 65536)
        if client:
            try:
                through(client.send, data)
            except OSError:
                client = None
    if client in readable:
        data = b""
        try:
            data = client.recv(65536)
        except OSError:
            pass
        if data:
            through(lambda data: os.write(port, data), data)
        else:
            client = None
