/*
 * The least that any proxy costs: bytes between a TCP port of loopback and a Unix socket,
 * one connection for one, by epoll, recv and send, and nothing else. It prints its port.
 *
 *     relay SOCKET
 *
 * A pair is closed only when its whole batch of events was looked at, so that no event
 * meets a descriptor that has become another connection's.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { EVENTS = 256, DESCRIPTORS = 1 << 16 };

static int epoll, listener;
static char ended[DESCRIPTORS];
static char buf[64 << 10];

static void watch(int fd, int partner)
{
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = (uint64_t)partner << 32 | (uint32_t)fd};
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
}

static void pair(const struct sockaddr_un *to)
{
	int one = 1, client = accept(listener, 0, 0), server = socket(AF_UNIX, SOCK_STREAM, 0);
	if (client < 0 || server < 0 || client >= DESCRIPTORS || server >= DESCRIPTORS ||
	    connect(server, (const struct sockaddr *)to, sizeof *to) < 0) {
		close(client);
		close(server);
		return;
	}
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	ended[client] = ended[server] = 0;
	watch(client, server);
	watch(server, client);
}

/* pass moves what is there; 0 is the end of the connection. */
static int pass(int from, int to)
{
	ssize_t got = recv(from, buf, sizeof buf, MSG_DONTWAIT), sent = 0;
	while (sent < got) {
		ssize_t n = send(to, buf + sent, got - sent, MSG_NOSIGNAL);
		if (n < 0)
			return 0;
		sent += n;
	}
	return got > 0 || (got < 0 && errno == EAGAIN);
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	socklen_t size = sizeof at;

	if (argc != 2 || strlen(argv[1]) >= sizeof to.sun_path)
		return 2;
	strcpy(to.sun_path, argv[1]);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	epoll = epoll_create1(0);
	if (listener < 0 || epoll < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 1024) < 0 ||
	    getsockname(listener, (struct sockaddr *)&at, &size) < 0) {
		perror("relay");
		return 1;
	}
	watch(listener, 0);
	printf("%d\n", ntohs(at.sin_port));
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(epoll, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			int from = (uint32_t)events[i].data.u64, partner = events[i].data.u64 >> 32;
			if (from == listener)
				pair(&to);
			else if (!ended[from] && !pass(from, partner))
				ended[from] = ended[partner] = 1;
			else
				events[i].data.u64 = 0; /* nothing to close */
		}
		for (int i = 0; i < n; i++) {
			int from = (uint32_t)events[i].data.u64;
			if (from != 0 && from != listener) {
				close(from);
				close(events[i].data.u64 >> 32);
			}
		}
	}
}
