package lab;

import alluxio.conf.AlluxioConfiguration;
import alluxio.conf.Configuration;
import alluxio.conf.PropertyKey;
import alluxio.exception.runtime.UnavailableRuntimeException;
import alluxio.membership.MembershipManager;
import alluxio.retry.RetryPolicy;
import alluxio.retry.RetryUtils;
import alluxio.util.network.NetworkAddressUtils;
import alluxio.util.network.NetworkAddressUtils.ServiceType;
import alluxio.wire.WorkerIdentity;
import alluxio.wire.WorkerInfo;
import alluxio.wire.WorkerNetAddress;

import com.google.common.base.Throwables;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The lab's worker: it reads Alluxio's real configuration, and joins by Alluxio's real membership
 * manager. Its order of starting, its ports and how it ends are those of upstream's
 * {@code alluxio.worker.AlluxioWorker}; what it serves is {@link Data} and {@link Endpoints}.
 */
public final class Worker {
  private static final Logger LOG = LoggerFactory.getLogger(Worker.class);
  /**
   * The lab's own: how long, in milliseconds, it is a member before web and HTTP answer. On a real
   * worker that is what starting Jetty and Netty takes: seconds, some twenty on a loaded machine.
   */
  private static final String READY_DELAY = "lab.ready.delay.ms";
  private static final int READY_DELAY_DEFAULT = 300;

  private final AlluxioConfiguration mConf;
  private final WorkerIdentity mIdentity;
  private final MembershipManager mMembership;
  private final Endpoints mEndpoints;
  private final ServerSocket mWeb;
  private final WorkerNetAddress mAddress;

  /** Runs until it is killed; a lost process shows by its lease, which is not given back. */
  public static void main(String[] args) {
    if (args.length != 0) {
      System.exit(-1);
    }
    AlluxioConfiguration conf = Configuration.global();
    Worker worker = null;
    try {
      worker = new Worker(conf);
    } catch (Throwable t) { // as alluxio.ProcessUtils.fatalError
      LOG.error("Fatal error: Failed to create worker process\n{}",
          Throwables.getStackTraceAsString(t));
      ExitInformation.write(conf);
      System.exit(-1);
    }
    Runtime.getRuntime().addShutdownHook(
        new Thread(() -> ExitInformation.write(conf), "alluxio-process-shutdown-hook"));
    try { // as alluxio.ProcessUtils.run
      LOG.info("Starting {}.", worker);
      worker.start();
      Thread.currentThread().join();
    } catch (Throwable t) {
      LOG.error("Uncaught exception while running {}, stopping it and exiting. "
          + "Exception \"{}\", Root Cause \"{}\"", worker, t, Throwables.getRootCause(t), t);
      ExitInformation.write(conf);
      System.exit(-1);
    }
  }

  /** Everything before the join: whatever is not there, or taken, ends the process here. */
  private Worker(AlluxioConfiguration conf) throws IOException {
    mConf = conf;
    mIdentity = Identity.resolve(conf);
    mMembership = MembershipManager.Factory.create(conf);
    PageStore pages = PageStore.open(conf);
    Metastore.open(conf);
    mEndpoints = new Endpoints(conf);
    Data data = new Data(pages);

    InetSocketAddress rpc = NetworkAddressUtils.getBindAddress(ServiceType.WORKER_RPC, conf);
    InetSocketAddress netty = NetworkAddressUtils.getBindAddress(ServiceType.WORKER_DATA, conf);
    Server.serve("data", Server.bind(netty), data::read);
    if (conf.getBoolean(PropertyKey.WORKER_S3_REST_ENABLED)) {
      InetSocketAddress s3 = NetworkAddressUtils.getBindAddress(ServiceType.WORKER_REST, conf);
      Server.serve("s3", Server.bind(s3), Http.serving(mEndpoints::s3));
    }
    // Taken now and answered later: a connection is made, and waits.
    InetSocketAddress web = NetworkAddressUtils.getBindAddress(ServiceType.WORKER_WEB, conf);
    try {
      mWeb = Server.bind(web);
    } catch (IOException e) {
      throw new RuntimeException(String.format(
          "Failed to listen on address %s for web server %s", web, "Alluxio worker web service"), e);
    }
    try {
      Server.serve("rpc", Server.bind(rpc), data::status);
    } catch (IOException e) {
      throw new RuntimeException("Alluxio worker gRPC server failed to start on " + rpc, e);
    }
    LOG.info("Alluxio worker gRPC server started, listening on {}", rpc);

    mAddress = new WorkerNetAddress()
        .setHost(NetworkAddressUtils.getConnectHost(ServiceType.WORKER_RPC, conf))
        .setContainerHost(conf.getOrDefault(PropertyKey.WORKER_CONTAINER_HOSTNAME, ""))
        .setRpcPort(rpc.getPort())
        .setDataPort(netty.getPort())
        .setWebPort(mWeb.getLocalPort())
        .setNettyDataPort(netty.getPort());
    if (conf.getBoolean(PropertyKey.WORKER_HTTP_SERVER_ENABLED)) {
      mAddress.setHttpServerPort(conf.getInt(PropertyKey.WORKER_HTTP_SERVER_PORT));
    }
  }

  private void start() throws Exception {
    join();
    Thread.sleep(Integer.getInteger(READY_DELAY, READY_DELAY_DEFAULT));
    Server.serve("web", mWeb, Http.serving(mEndpoints::web));
    LOG.info("Alluxio worker web service started @ {}", mWeb.getLocalSocketAddress());
    if (mConf.getBoolean(PropertyKey.WORKER_HTTP_SERVER_ENABLED)) {
      int port = mConf.getInt(PropertyKey.WORKER_HTTP_SERVER_PORT);
      try {
        Server.serve("http", Server.bind(new InetSocketAddress(port)),
            Http.serving(mEndpoints::http));
      } catch (IOException e) {
        // Upstream's HttpServer binds in a thread whose failure nobody reads: the worker goes on,
        // and nothing is logged.
      }
    }
    LOG.info("Alluxio worker started. id={}, bindHost={}, connectHost={}, rpcPort={}, webPort={}",
        mIdentity, NetworkAddressUtils.getBindHost(ServiceType.WORKER_RPC, mConf),
        mAddress.getHost(), mAddress.getRpcPort(), mAddress.getWebPort());
  }

  /** As {@code PagedDoraWorker.register}: whatever the membership answers is tried again. */
  private void join() throws IOException {
    RetryPolicy retry = RetryUtils.defaultWorkerMasterClientRetry();
    while (true) {
      try {
        LOG.info("{} membership manager starts joining...",
            mConf.get(PropertyKey.WORKER_MEMBERSHIP_MANAGER_TYPE));
        mMembership.join(new WorkerInfo().setIdentity(mIdentity).setAddress(mAddress));
        return;
      } catch (IOException | UnavailableRuntimeException e) {
        LOG.error("Exception in join membership:", e);
        if (!retry.attempt()) {
          throw e;
        }
      }
    }
  }

  @Override
  public String toString() {
    return "the lab's Alluxio worker @" + mAddress.getHost() + ":" + mAddress.getRpcPort();
  }
}
