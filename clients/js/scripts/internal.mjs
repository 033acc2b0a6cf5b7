// Properties that neither applications, nor the wire, nor the platform use: the build of the one file shortens them. A
// name belongs here only if nothing reads it by a string. `npm run test:built` runs the tests against the built file.
export const INTERNAL = `
  again authenticated expired expiring failed given greeted identified identity isGranted obtain partial present received refused request
  restricted rightsChanged tokenTries why
  answered answers apply atMs backlog batch blurred books broken buffers capacity checkSilence cleared columns connectionLost
  connectTo count counters covering covers current defaultMs define defined deliver deliverCurrent dropUnused emit
  empty events fail finish forget gap gone handle hintMs ingest items kind known leastMs lengths listen lists live lost
  markSynced maybeBad mirror newEpoch oldestMs onClosed onEnd options outbox packet pending plan post prefix probe
  purge pushRaw rank recovering release report requestedMs rescaled rests result resultOf revision rounded rows sent setStates settings
  shown sides sign Socket spent stage stateOf states statesDirty subscribers subscription subscriptions symbolsMax
  synced take target top use welcomed
`
  .trim()
  .split(/\s+/);
