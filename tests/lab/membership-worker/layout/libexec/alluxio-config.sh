# shellcheck shell=bash
# Sourced by the scripts of bin/, as upstream's file of this name: where things are,
# conf/alluxio-env.sh, Java and its options.

libexec=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
source "$libexec/version.sh"
ALLUXIO_HOME=$(dirname "$libexec")
ALLUXIO_CONF_DIR=${ALLUXIO_CONF_DIR:-$ALLUXIO_HOME/conf}
ALLUXIO_LOGS_DIR=${ALLUXIO_LOGS_DIR:-$ALLUXIO_HOME/logs}
ALLUXIO_USER_LOGS_DIR=${ALLUXIO_USER_LOGS_DIR:-$ALLUXIO_LOGS_DIR/user}

if [[ -e $ALLUXIO_CONF_DIR/alluxio-env.sh ]]; then
  source "$ALLUXIO_CONF_DIR/alluxio-env.sh"
fi

if [[ -z ${JAVA:-} ]]; then
  if [[ -n ${JAVA_HOME:-} && -x $JAVA_HOME/bin/java ]]; then
    JAVA=$JAVA_HOME/bin/java
  elif ! JAVA=$(type -P java); then
    echo "Error: Cannot find 'java' on path or under \$JAVA_HOME/bin/. Please set JAVA_HOME in alluxio-env.sh or user bash profile."
    exit 1
  fi
fi
JAVA_VERSION=$($JAVA -version 2>&1 | awk -F '"' '/version/ {print $2}')
JAVA_MAJORMINOR=$(echo "$JAVA_VERSION" | awk -F. '{printf("%03d%03d", $1, $2)}')
JAVA_MAJOR=$(echo "$JAVA_VERSION" | awk -F. '{printf("%03d", $1)}')
if [[ $JAVA_MAJORMINOR != 001008 && $JAVA_MAJOR != 011 ]]; then
  # On stdout, as upstream says it.
  echo "Error: Alluxio requires Java 8 or Java 11, currently Java $JAVA_VERSION found."
  exit 1
fi

ALLUXIO_SERVER_CLASSPATH="$ALLUXIO_CONF_DIR/:${ALLUXIO_CLASSPATH:-}:$ALLUXIO_HOME/assembly/alluxio-server-$VERSION.jar"

ALLUXIO_JAVA_OPTS+=" -Dalluxio.home=$ALLUXIO_HOME -Dalluxio.conf.dir=$ALLUXIO_CONF_DIR"
ALLUXIO_JAVA_OPTS+=" -Dalluxio.logs.dir=$ALLUXIO_LOGS_DIR -Dalluxio.user.logs.dir=$ALLUXIO_USER_LOGS_DIR"
if [[ -n ${ALLUXIO_MASTER_HOSTNAME:-} ]]; then
  ALLUXIO_JAVA_OPTS+=" -Dalluxio.master.hostname=$ALLUXIO_MASTER_HOSTNAME"
fi
ALLUXIO_JAVA_OPTS+=" -Dlog4j.configuration=file:$ALLUXIO_CONF_DIR/log4j.properties"
ALLUXIO_JAVA_OPTS+=" -Djava.net.preferIPv4Stack=true"
ALLUXIO_WORKER_JAVA_OPTS=" -Dalluxio.logger.type=${ALLUXIO_WORKER_LOGGER:-WORKER_LOGGER} $ALLUXIO_JAVA_OPTS ${ALLUXIO_WORKER_JAVA_OPTS:-}"
