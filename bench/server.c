/* The far end of every measurement: one blocking thread a connection, nothing else to do.
 *
 * Requests are lines. "*IDN?" is answered with one line; "S n" with n bytes of text lines of 64 bytes each; "E n" with
 * the same and then the end of the stream. The port is printed on stdout; the end of stdin ends the program.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char IDENTITY[] = "ACME,bench,0,1.0\n";
static char text[65536];

static int send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, 0);
        if (sent <= 0)
            return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static int send_text(int fd, long long size)
{
    for (; size > 0; size -= (long long)sizeof text) {
        size_t part = size < (long long)sizeof text ? (size_t)size : sizeof text;
        if (send_all(fd, text, part))
            return -1;
    }
    return 0;
}

static int answer(int fd, const char *request)
{
    switch (request[0]) {
    case '*':
        return send_all(fd, IDENTITY, sizeof IDENTITY - 1);
    case 'S':
        return send_text(fd, atoll(request + 1));
    case 'E':
        return send_text(fd, atoll(request + 1)) || shutdown(fd, SHUT_WR);
    default:
        return -1;
    }
}

static void *serve(void *argument)
{
    int fd = (int)(intptr_t)argument, on = 1;
    struct linger reset = {1, 0}; /* closed by reset: thousands of links leave no port in TIME_WAIT */
    char buffer[256];
    size_t used = 0;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    while (used < sizeof buffer) {
        ssize_t got = recv(fd, buffer + used, sizeof buffer - used, 0);
        char *end;
        if (got <= 0)
            break;
        used += (size_t)got;
        while ((end = memchr(buffer, '\n', used)) != NULL) {
            size_t line = (size_t)(end - buffer) + 1;
            *end = '\0';
            if (answer(fd, buffer))
                goto done;
            used -= line;
            memmove(buffer, buffer + line, used);
        }
    }
done:
    close(fd);
    return NULL;
}

static void *exit_with_stdin(void *unused)
{
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    _exit(0);
    return unused;
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    pthread_attr_t detached;
    pthread_t thread;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    signal(SIGPIPE, SIG_IGN);
    memset(text, 'x', sizeof text);
    for (size_t end = 63; end < sizeof text; end += 64)
        text[end] = '\n';
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024)
        || getsockname(listener, (struct sockaddr *)&address, &size)) {
        perror("bench server");
        return 1;
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 65536);
    pthread_create(&thread, &detached, exit_with_stdin, NULL);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0 && pthread_create(&thread, &detached, serve, (void *)(intptr_t)fd))
            close(fd);
    }
}
