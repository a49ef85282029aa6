package lab;

import alluxio.conf.AlluxioConfiguration;
import alluxio.conf.Configuration;
import alluxio.conf.PropertyKey;
import alluxio.membership.MembershipManager;
import alluxio.util.network.NetworkAddressUtils;
import alluxio.util.network.NetworkAddressUtils.ServiceType;
import alluxio.wire.WorkerInfo;
import alluxio.wire.WorkerNetAddress;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A worker that is a member and nothing else: it reads Alluxio's real configuration, joins by
 * Alluxio's real membership manager and holds its ports, but serves no data.
 */
public final class MembershipOnlyWorker {
  private static final Logger LOG = LoggerFactory.getLogger(MembershipOnlyWorker.class);

  private MembershipOnlyWorker() {}

  /** Runs until it is killed; a lost process shows by its lease, which is not given back. */
  public static void main(String[] args) {
    Runtime.getRuntime().addShutdownHook(new Thread(() -> LOG.info("Worker ended")));
    try {
      run(Configuration.global());
      Thread.currentThread().join();
    } catch (Throwable e) {
      LOG.error("Worker failed: {}", e.getMessage(), e);
      System.exit(1);
    }
  }

  private static void run(AlluxioConfiguration conf) throws Exception {
    LOG.info("Starting a membership-only worker (serves no data) of cluster {}",
        conf.getString(PropertyKey.ALLUXIO_CLUSTER_NAME));
    for (String dir : conf.getList(PropertyKey.WORKER_PAGE_STORE_DIRS)) {
      checkWritable(Paths.get(dir));
    }
    boolean http = conf.getBoolean(PropertyKey.WORKER_HTTP_SERVER_ENABLED);
    WorkerNetAddress address = new WorkerNetAddress()
        .setHost(NetworkAddressUtils.getConnectHost(ServiceType.WORKER_RPC, conf))
        .setContainerHost(conf.getOrDefault(PropertyKey.WORKER_CONTAINER_HOSTNAME, ""))
        .setRpcPort(conf.getInt(PropertyKey.WORKER_RPC_PORT))
        .setDataPort(conf.getInt(PropertyKey.WORKER_DATA_PORT))
        .setWebPort(conf.getInt(PropertyKey.WORKER_WEB_PORT))
        .setHttpServerPort(http ? conf.getInt(PropertyKey.WORKER_HTTP_SERVER_PORT) : 0);
    WorkerInfo worker =
        new WorkerInfo().setIdentity(Identity.resolve(conf)).setAddress(address);

    String host = NetworkAddressUtils.getBindHost(ServiceType.WORKER_RPC, conf);
    listen(host, address.getRpcPort());
    listen(host, address.getDataPort());
    listen(host, address.getWebPort());
    if (http) {
      listen(host, address.getHttpServerPort());
    }

    LOG.info("{} membership manager starts joining as {}",
        conf.get(PropertyKey.WORKER_MEMBERSHIP_MANAGER_TYPE), worker.getIdentity());
    MembershipManager.Factory.create(conf).join(worker);
    LOG.info("Worker started. id={}, host={}, rpcPort={}, webPort={}", worker.getIdentity(),
        address.getHost(), address.getRpcPort(), address.getWebPort());
  }

  private static void checkWritable(Path dir) throws IOException {
    Files.createDirectories(dir);
    if (!Files.isWritable(dir)) {
      throw new IOException("Page store directory cannot be written: " + dir);
    }
  }

  /** Takes connections, so that the port is seen open, and ends them. */
  private static void listen(String host, int port) throws IOException {
    ServerSocket server = new ServerSocket();
    server.setReuseAddress(true);
    try {
      server.bind(new InetSocketAddress(host, port));
    } catch (IOException e) {
      throw new IOException("Failed to bind to address " + host + ":" + port, e);
    }
    Thread thread = new Thread(() -> {
      while (true) {
        try (Socket ignored = server.accept()) {
          LOG.debug("Connection to port {}", port);
        } catch (IOException e) {
          LOG.warn("Port {}: {}", port, e.getMessage());
        }
      }
    }, "listen-" + port);
    thread.setDaemon(true);
    thread.start();
  }
}
