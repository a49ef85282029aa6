package lab;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Listens on a port; each connection has a thread, and one exchange. */
final class Server {
  private static final Logger LOG = LoggerFactory.getLogger(Server.class);
  private static final int TIMEOUT_MS = 30_000;
  private static final ExecutorService POOL = Executors.newCachedThreadPool(Server::daemon);

  private Server() {}

  /** What is done with a connection, which is closed afterwards. */
  interface Exchange {
    void run(Socket socket) throws IOException;
  }

  static ServerSocket bind(InetSocketAddress address) throws IOException {
    ServerSocket server = new ServerSocket();
    server.setReuseAddress(true);
    try {
      server.bind(address, 1024);
    } catch (IOException e) {
      server.close();
      throw new IOException("Failed to bind to address " + address, e);
    }
    return server;
  }

  static void serve(String name, ServerSocket server, Exchange exchange) {
    POOL.execute(() -> {
      while (true) {
        try {
          Socket socket = server.accept();
          POOL.execute(() -> answer(name, socket, exchange));
        } catch (IOException e) {
          LOG.warn("{}: {}", name, e.getMessage());
        }
      }
    });
  }

  private static void answer(String name, Socket socket, Exchange exchange) {
    try (Socket connection = socket) {
      connection.setSoTimeout(TIMEOUT_MS);
      exchange.run(connection);
    } catch (IOException | RuntimeException e) {
      LOG.debug("{}: {}", name, e.toString());
    }
  }

  private static Thread daemon(Runnable work) {
    Thread thread = new Thread(work, "lab-server");
    thread.setDaemon(true);
    return thread;
  }
}
